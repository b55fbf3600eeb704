"""Checks of the CNI and of pod addresses."""
