"""The store with a real PostgreSQL, and with a daemon that is killed. `make test-store`."""
