"""Checks of nodes and their devices."""
