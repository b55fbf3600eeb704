"""When and how completely each node was watched."""
