"""Sightings to connections: by the tuple on each side of a translation."""
