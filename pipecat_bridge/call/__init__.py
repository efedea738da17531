"""Calls, from the phone's first message to the outcome. No sockets."""
