"""Paths as trees, lines and live views."""
