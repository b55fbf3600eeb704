"""A diagnosis as text, Markdown, data, and a page for the ticket."""
