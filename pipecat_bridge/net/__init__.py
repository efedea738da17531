"""The daemon's use of Twisted: sockets, ports, processes, HTTP, and the log."""
