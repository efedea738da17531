"""Hostile peers of all three ports, each beside a call that should not feel it."""
