"""Tests of the ways out for events."""
