"""Chooses the runner for each call."""
