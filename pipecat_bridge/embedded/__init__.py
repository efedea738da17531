"""The runner that comes along, in a process of its own; imports nothing of the daemon."""
