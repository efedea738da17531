"""What the daemon needs of Twisted: sockets, ports, processes, HTTP, and its log."""
