"""Bytes to typed messages and back: no network, no clock, no Twisted."""
