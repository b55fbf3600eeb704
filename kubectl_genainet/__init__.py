"""kubectl genainet: network diagnosis for GenAI workloads on Kubernetes, from real packets."""

__version__ = "0.1.0"
