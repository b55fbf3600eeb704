"""nftables rulesets, JSON and text, read and compiled."""
