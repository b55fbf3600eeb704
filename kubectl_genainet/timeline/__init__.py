"""What was felt and what changed over a time, and when it began (pure)."""
