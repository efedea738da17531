"""Load: many callers, a runner double, and what a bridge between them costs and delays."""
