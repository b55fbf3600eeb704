"""What checks of several families ask about a cluster."""
