"""A timeline for a terminal, as Markdown, as data, and as a page."""
