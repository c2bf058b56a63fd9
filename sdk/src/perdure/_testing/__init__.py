"""What `perdure.testing` is made of: its time, and what it sees of messages."""
