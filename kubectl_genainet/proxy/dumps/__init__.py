"""Saved dumps of rules as people post them: told apart, unwrapped, each table read once."""
