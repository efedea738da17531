"""The link to one bot: audio and messages, both ways."""
