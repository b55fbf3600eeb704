"""DNS messages from packets and TCP streams, on a node."""
