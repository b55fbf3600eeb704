"""iptables-save and ipset text, read and compiled."""
