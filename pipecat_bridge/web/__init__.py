"""Shows calls and steers them: HTTP API and metrics."""
