"""What is made of the events: paths, drops, DNS exchanges, and their measures."""
