"""Input that is made up, guided by the code that it reaches: `make fuzz`."""
