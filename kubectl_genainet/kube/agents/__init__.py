"""The agents' DaemonSet: deploy, look after, reach, remove."""
