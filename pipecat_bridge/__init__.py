"""Puts Pipecat voice bots on Asterisk phone lines."""

__version__ = "0.1.0"
