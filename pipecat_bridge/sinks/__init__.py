"""Ways out for events: webhooks, server-sent events, a file. Nobody waits for them."""
