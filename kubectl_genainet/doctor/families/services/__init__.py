"""Checks of Services, their endpoints and kube-proxy."""
