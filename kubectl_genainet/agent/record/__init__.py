"""The recorder of a node: what of the probes' records is kept whole, what as totals, and how it gets to the disk."""
