"""The terminal while a run goes on: drawn in place, or, where there is a keyboard, a table with keys."""
