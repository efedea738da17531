"""Tools for people: a soft phone, the demonstration, the load generator."""
