"""Several processes behind one AudioSocket port and one API: the supervisor and its workers."""
