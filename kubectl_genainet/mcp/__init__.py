"""The verbs that only read, as tools of a Model Context Protocol server."""
