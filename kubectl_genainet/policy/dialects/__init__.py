"""Policies as each API writes them, decoded to rules."""
