"""The one form of rules, and the walk of a packet through them."""
