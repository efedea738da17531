"""Code for authors of Pipecat bots."""
