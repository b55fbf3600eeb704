"""What recorders keep: the format of segments, writing and reading them, and making a Bundle of what several nodes kept."""
