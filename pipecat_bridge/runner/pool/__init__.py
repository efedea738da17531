"""Which runner gets the next call."""
