"""NetworkPolicy semantics: whether a flow passes, why, what would admit it, and who may reach whom.

    engine = PolicyEngine(snapshot)
    engine.explain(PolicyFlow(pod_endpoint("default", "rag"), ip_endpoint("10.0.0.9"), "TCP", 443)).verdict

Pure: no input or output. docs/policies.md says what is evaluated and how.
"""

from kubectl_genainet.policy.compile import POLICY_KINDS
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import (
    Direction,
    DirectionResult,
    Effect,
    Explanation,
    FailedTerm,
    NotEvaluated,
    PolicyEndpoint,
    PolicyFamily,
    PolicyFlow,
    PolicyResult,
    PolicyVerdict,
    Reason,
    RuleAction,
    RuleResult,
    Term,
    domain_endpoint,
    ip_endpoint,
    pod_endpoint,
)
from kubectl_genainet.policy.patches.patch import Patch, Patcher, PatchOption, PolicyChange, patch, patch_all
from kubectl_genainet.policy.reach.matrix import Matrix

__all__ = [
    "POLICY_KINDS",
    "Direction",
    "DirectionResult",
    "Effect",
    "Explanation",
    "FailedTerm",
    "Matrix",
    "NotEvaluated",
    "Patch",
    "PatchOption",
    "Patcher",
    "PolicyChange",
    "PolicyEndpoint",
    "PolicyEngine",
    "PolicyFamily",
    "PolicyFlow",
    "PolicyResult",
    "PolicyVerdict",
    "Reason",
    "RuleAction",
    "RuleResult",
    "Term",
    "domain_endpoint",
    "ip_endpoint",
    "patch",
    "patch_all",
    "pod_endpoint",
]
