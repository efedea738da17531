"""HTTP API and metrics: shows calls and controls them."""
