"""A packet on its way through a node's rules: its headers and its state."""
