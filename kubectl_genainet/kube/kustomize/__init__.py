"""Kustomizations built in process, in time and memory that their size bounds: a repository may come from anybody."""
