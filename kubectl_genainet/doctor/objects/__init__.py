"""API objects as the checks read them."""
