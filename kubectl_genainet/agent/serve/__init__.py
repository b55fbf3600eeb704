"""The HTTP interface, and what it lets nobody exceed."""
