"""NetworkPolicy semantics: whether a flow passes, why, what would admit it, and who may reach whom.

    engine = PolicyEngine(snapshot)
    engine.explain(PolicyFlow(pod_endpoint("default", "rag"), ip_endpoint("10.0.0.9"), "TCP", 443)).verdict

Pure: no input or output. docs/policies.md says what is evaluated and how.
"""

from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import (
    Action,
    Direction,
    DirectionResult,
    Effect,
    Explanation,
    FailedTerm,
    Family,
    NotEvaluated,
    PolicyEndpoint,
    PolicyFlow,
    PolicyResult,
    Reason,
    RuleResult,
    Term,
    Verdict,
    domain_endpoint,
    ip_endpoint,
    pod_endpoint,
)

__all__ = [
    "Action",
    "Direction",
    "DirectionResult",
    "Effect",
    "Explanation",
    "FailedTerm",
    "Family",
    "NotEvaluated",
    "PolicyEndpoint",
    "PolicyEngine",
    "PolicyFlow",
    "PolicyResult",
    "Reason",
    "RuleResult",
    "Term",
    "Verdict",
    "domain_endpoint",
    "ip_endpoint",
    "pod_endpoint",
]
