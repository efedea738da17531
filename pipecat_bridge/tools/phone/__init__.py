"""A soft phone on AudioSocket, for demonstrations and tests of a line."""
