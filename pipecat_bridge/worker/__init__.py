"""A worker: a bridge in a process of its own, started and supervised by `workers`."""
