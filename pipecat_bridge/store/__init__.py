"""What is known of calls, kept on disk: a journal, and behind it a database."""
