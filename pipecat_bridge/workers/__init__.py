"""Several processes behind one AudioSocket port and one API: what supervises the workers."""
