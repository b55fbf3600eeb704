"""nginx as a pod's own proxy."""
