"""The kinds that make pods, and the pods that operators compose of those without a pod template."""
