"""`diagnose`: three watches at once, and one conclusion."""
