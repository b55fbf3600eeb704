"""Traefik: its routes, and the settings of its entry points."""
