"""A run a verb: from a source to typed results, told to a View. Knows no command line and no terminal."""
