"""What a run found as one document: for a ticket as an HTML page, or as Markdown."""
