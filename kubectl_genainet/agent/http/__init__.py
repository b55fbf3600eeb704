"""Requests and responses of clear HTTP/1.1, and streams of clear HTTP/2, only where a client asked for them (`trace --http`)."""
