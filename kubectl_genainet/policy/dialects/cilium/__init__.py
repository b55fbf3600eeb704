"""Cilium: its own policies, and NetworkPolicies as it enforces them."""

from kubectl_genainet.policy.dialects.cilium.compiler import CiliumCompiler

__all__ = ["CiliumCompiler"]
