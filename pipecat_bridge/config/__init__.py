"""Reads the configuration and checks it."""
