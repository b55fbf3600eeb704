"""Counted drops to rows: who could not reach whom, where it ended."""
