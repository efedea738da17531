"""How a bot is asked for: the search for a runner, and each way to start a bot."""
