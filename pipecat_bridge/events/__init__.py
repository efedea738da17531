"""Events of calls: listeners, log lines, and the history of each call."""
