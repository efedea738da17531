"""The load generator: many callers and bots, and the cost and delay of a bridge between them."""
