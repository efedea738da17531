"""The embedded runner. It runs in a separate process and imports no part of the daemon."""
