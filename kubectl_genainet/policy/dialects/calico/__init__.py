"""Calico's policies: compiled by `compiler`, with what its API refuses in `checks`."""
