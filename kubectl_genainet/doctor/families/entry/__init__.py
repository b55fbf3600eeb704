"""Checks of the ways into the cluster, and of the mesh."""
