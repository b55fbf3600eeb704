"""The host's firewall on a Service's way: what refuses its packets, and the smallest change that lets them through."""
