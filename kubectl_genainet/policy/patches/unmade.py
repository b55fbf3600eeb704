"""Why there is no patch, or no new policy that would do, and what the reader can change by hand."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import (
    Direction,
    DirectionResult,
    Effect,
    Explanation,
    PolicyFamily,
    PolicyResult,
    PolicyVerdict,
)
from kubectl_genainet.policy.patches.patch import Patch
from kubectl_genainet.policy.patches.proposal import MOST_RULES
from kubectl_genainet.policy.rules import PROTOCOLS

_ADMIN_GROUP = "policy.networking.k8s.io"
_TRIED = (
    "Every change that was tried stops a flow that passes now, or does not admit this one: see the rules named above, and change "
    "one by hand."
)


def why_no_patch(engine: PolicyEngine, explanation: Explanation, patch: Patch | None) -> str:
    """What keeps a denied flow from having a patch, or one of a new policy; "" where there is nothing to say."""
    if explanation.verdict is not PolicyVerdict.DENY or (patch is not None and patch.new is not None):
        return ""
    reasons = list(dict.fromkeys(_reasons(engine, explanation)))
    if patch is None and not reasons:
        return _TRIED
    return " ".join(reasons)


def _reasons(engine: PolicyEngine, explanation: Explanation) -> Iterator[str]:
    flow = explanation.flow
    if flow.protocol not in PROTOCOLS:
        yield f"Policies name TCP, UDP and SCTP only: none can admit {flow.protocol}."
        return
    for direction in Direction:
        result = explanation.direction(direction)
        if result.verdict is PolicyVerdict.DENY:
            yield from _of_direction(engine, explanation, direction, result)


def _of_direction(
    engine: PolicyEngine, explanation: Explanation, direction: Direction, result: DirectionResult
) -> Iterator[str]:
    denying = next((p for p in result.policies if p.effect is Effect.DENIES), None)
    if denying is not None and denying.ref in engine.by_option:
        yield (
            f"{denying.ref} sets an option of {engine.enforcer.title} that drops it, and no policy goes before that: change the "
            "option."
        )
    elif denying is not None and denying.family is PolicyFamily.CILIUM:
        yield (
            f"No patch: {_rule(denying)} denies it, and a deny rule goes before every rule that allows. Narrow that rule, so "
            "that it leaves the flow out."
        )
    elif denying is not None and denying.family is PolicyFamily.ADMIN:
        obj = engine.policy_object(denying.ref, (_ADMIN_GROUP,))
        if obj is not None:
            yield from _before_administrators(engine, obj, denying, direction)
    peer = explanation.flow.destination if direction is Direction.EGRESS else explanation.flow.source
    if peer.domain and not peer.ip and engine.identities is None:
        yield (
            f"A policy of this cluster can't name {peer.domain}, only addresses: admit the addresses that it has (ipBlock), or "
            "ask with one of them."
        )


def _before_administrators(
    engine: PolicyEngine, obj: KubeObject, denying: PolicyResult, direction: Direction
) -> Iterator[str]:
    """What keeps a rule, or a policy, from going before the one that denies."""
    spec = obj.raw.get("spec") or {}
    priority, most = spec.get("priority"), MOST_RULES.get(obj.kind, 0)
    if obj.kind == "BaselineAdminNetworkPolicy":
        yield f"No new policy goes before {denying.ref}: a cluster has one of this kind."
    elif priority == 0:
        yield (
            f"No new policy goes before {denying.ref}: its priority is 0, the first. Add the exception to it, before the rule "
            "that denies, or give it a later priority to make room."
        )
    elif isinstance(priority, int) and _taken_below(engine, obj) >= priority:
        yield (
            f"No new policy goes before {denying.ref}: priorities 0 to {priority - 1} are all taken. Add the exception to one of "
            f"those policies, or to {denying.ref} before the rule that denies."
        )
    if len(spec.get(direction.value) or ()) >= most:
        yield (
            f"No rule can be added to {denying.ref}: it has {most} in {direction.value}, the most that the API takes. Join or "
            f"remove some, or narrow {_rule(denying)}."
        )


def _taken_below(engine: PolicyEngine, obj: KubeObject) -> int:
    """How many priorities before an object's own other policies of its kind have."""
    specs = (other.raw.get("spec") for other in engine.snapshot.of(obj.kind, obj.group))
    given = {spec.get("priority") for spec in specs if isinstance(spec, dict)}
    return len({p for p in given if isinstance(p, int) and 0 <= p < obj.raw["spec"]["priority"]})


def _rule(policy: PolicyResult) -> str:
    return f"rule {policy.rule} of {policy.ref}"
