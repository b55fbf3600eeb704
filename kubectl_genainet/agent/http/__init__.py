"""Requests and responses of clear HTTP/1.1, only where a client asked for them (`trace --http`)."""
