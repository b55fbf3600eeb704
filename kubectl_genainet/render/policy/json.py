"""Policy answers as JSON values.

`flow_json` is the batch format: verdict, then per direction verdict, isolated_by, admitted_by and policies. Where no
policy bears on a direction it has a `reason`, where something could not be evaluated `not_evaluated` names it.
"""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.model import DirectionResult, Explanation, PolicyResult, Reason, RuleResult
from kubectl_genainet.policy.patches.patch import Option, Patch


def ref_text(ref: ObjectRef) -> str:
    """ "namespace/name" for a NetworkPolicy, with the kind before it ("Kind/namespace/name", "Kind/name") for the others."""
    name = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    return name if ref.kind == "NetworkPolicy" else f"{ref.kind}/{name}"


def flow_json(explanation: Explanation, *, rules: bool = False) -> dict[str, Any]:
    """One line of the batch output; with `rules`, each policy's rules and their failing terms too."""
    return {
        "verdict": explanation.verdict.value,
        "egress": _direction(explanation.egress, rules),
        "ingress": _direction(explanation.ingress, rules),
    }


def explanation_json(explanation: Explanation, service: str = "") -> dict[str, Any]:
    """The flow and the whole answer for it."""
    flow = explanation.flow
    ends = {"from": str(flow.source), "to": str(flow.destination), "protocol": flow.protocol, "port": flow.port}
    more = {"service": service} if service else {}
    if explanation.arrival:
        more["arrival"] = explanation.arrival
    return {**ends, **more, **flow_json(explanation, rules=True)}


def patch_json(patch: Patch) -> dict[str, Any]:
    """Both options: the objects to apply, and what else each admits."""
    return {"edit": _option(patch.edit), "new": _option(patch.new)}


def _option(option: Option | None) -> dict[str, Any] | None:
    if option is None:
        return None
    changes = [{"object": c.object, "new": c.is_new, "what": c.what} for c in option.changes]
    also = [{"from": a, "to": b} for a, b in option.also_admits]
    return {"changes": changes, "also_admits": also, "isolates": list(option.isolates)}


def _direction(result: DirectionResult, rules: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "verdict": result.verdict.value,
        "isolated_by": [ref_text(r) for r in result.isolated_by],
        "admitted_by": [ref_text(r) for r in result.admitted_by],
        "policies": [_policy(p, rules) for p in result.policies],
    }
    if rules or not result.policies:
        outside = result.reason is Reason.OUTSIDE and not rules
        out["reason"] = Reason.DEFAULT.value if outside else result.reason.value
    if result.not_evaluated:
        out["not_evaluated"] = [str(n) for n in result.not_evaluated]
    return out


def _policy(result: PolicyResult, rules: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "kind": result.ref.kind,
        "name": result.name,
        "effect": result.effect.value,
        "rule": result.rule,
    }
    if result.rule_name:
        out["rule_name"] = result.rule_name
    if rules:
        out["rules"] = [_rule(r) for r in result.rules]
    return out


def _rule(result: RuleResult) -> dict[str, Any]:
    out: dict[str, Any] = {"rule": result.number, "action": result.action.value, "matches": result.matches}
    if result.name:
        out["name"] = result.name
    if result.failed:
        failed = result.failed
        out["failed"] = {
            "term": failed.term.value,
            "wanted": failed.wanted,
            "actual": failed.actual,
            "field": failed.field,
        }
    return out
