"""What a call is, from the first byte to its outcome; no sockets."""
