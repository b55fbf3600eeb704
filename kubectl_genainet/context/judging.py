"""Flows as the NetworkPolicies of a snapshot judge them."""

from __future__ import annotations

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.policy import (
    DirectionResult,
    Explanation,
    PolicyEndpoint,
    PolicyEngine,
    PolicyFlow,
    PolicyVerdict,
)


def engine_of(snapshot: ClusterSnapshot) -> tuple[PolicyEngine | None, str]:
    """The snapshot's policies, and those that are not evaluated. No policies, and why, where an object can't be read."""
    try:
        engine = PolicyEngine(snapshot)
    except GenainetError as error:
        return None, error.message
    return engine, "; ".join(map(str, engine.unevaluated))


def policy_flow(flow: FiveTuple, snapshot: ClusterSnapshot) -> PolicyFlow:
    """The flow as policies judge it: pods by name where the addresses are pods'."""

    def end(ip: str) -> PolicyEndpoint:
        pod = snapshot.pod_at(ip)
        return PolicyEndpoint(pod.metadata.namespace, pod.metadata.name, ip) if pod else PolicyEndpoint(ip=ip)

    return PolicyFlow(end(flow.src), end(flow.dst), flow.protocol.value, flow.dport)


def denied_directions(flow: FiveTuple, engine: PolicyEngine) -> list[tuple[str, DirectionResult]]:
    """The directions in which policies do not admit the flow, judged from the API objects."""
    return denied_of(engine.explain(policy_flow(flow, engine.snapshot)))


def denied_of(answer: Explanation) -> list[tuple[str, DirectionResult]]:
    """The directions that an answer of the engine denies."""
    both = (("egress", answer.egress), ("ingress", answer.ingress))
    return [(name, result) for name, result in both if result.verdict is PolicyVerdict.DENY]
