"""Sightings of packets to connections and their paths."""
