"""Events of calls: their kinds and data, listeners, log lines, and the history of each call."""
