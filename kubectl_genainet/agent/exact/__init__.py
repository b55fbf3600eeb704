"""`--exact`: the rules that the kernel itself names."""
