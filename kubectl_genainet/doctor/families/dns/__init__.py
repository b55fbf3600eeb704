"""Checks of name lookup."""
