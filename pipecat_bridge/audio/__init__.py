"""Samples to samples: no network, no clock, no Twisted."""
