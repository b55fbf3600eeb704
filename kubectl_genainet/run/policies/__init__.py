"""The runs over policies: explain, alone and by lines, and matrix."""
