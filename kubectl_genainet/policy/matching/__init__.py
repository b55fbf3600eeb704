"""Which peers and ports a rule's selectors, blocks and names match."""
