"""The HTTP interface and the worker process of each session."""
