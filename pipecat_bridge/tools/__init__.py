"""Command-line tools: a soft phone, the demonstration, and the load generator."""
