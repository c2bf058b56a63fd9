"""HTTP between clients and the API: one JSON form of messages, the client's backend, the API itself."""
