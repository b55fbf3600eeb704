"""One session: a process of its own that loads the probes and streams what they see."""
