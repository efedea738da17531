"""Starts bots: the search for a runner, and each way to start a bot there."""
