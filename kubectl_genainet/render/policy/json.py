"""Policy answers as JSON values.

`flow_json` is the batch format: verdict, then per direction verdict, isolated_by, admitted_by and policies. Where no
policy bears on a direction it has a `reason`, where something could not be evaluated `not_evaluated` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.enforcers import Deviation, Enforcer
from kubectl_genainet.policy.flows.dns_way import DnsWay
from kubectl_genainet.policy.model import DirectionResult, Explanation, PolicyResult, Reason, RuleResult
from kubectl_genainet.policy.patches.added import AddedLabel
from kubectl_genainet.policy.patches.patch import Patch, PatchOption, PolicyChange
from kubectl_genainet.render.policy.circumstances import DnsWayJson, EnforcerJson, circumstances_json

FlowEnds = TypedDict("FlowEnds", {"from": str, "to": str})


class FailedTermJson(TypedDict):
    """The first term of a rule that the flow does not meet."""

    term: str
    wanted: str
    actual: str
    field: str


class RuleJson(TypedDict):
    rule: int
    action: str
    matches: bool | None
    name: NotRequired[str]
    failed: NotRequired[FailedTermJson]


class PolicyJson(TypedDict):
    """A policy that selects the pod, and the rule that decided (null where none did)."""

    kind: str
    name: str
    effect: str
    rule: int | None
    rule_name: NotRequired[str]
    rules: NotRequired[list[RuleJson]]


class DirectionJson(TypedDict):
    verdict: str
    isolated_by: list[str]
    admitted_by: list[str]
    policies: list[PolicyJson]
    reason: NotRequired[str]
    not_evaluated: NotRequired[list[str]]


FlowJson = TypedDict(
    "FlowJson",
    {
        "verdict": str,
        "egress": DirectionJson,
        "ingress": DirectionJson,
        "arrival": NotRequired[str],
        "dns": NotRequired[DnsWayJson],
        "from": NotRequired[str],
        "to": NotRequired[str],
        "flows": NotRequired[int],
    },
)
"""A line of `explain --flows`; `from`, `to` and `flows` are there where the line stands for several flows: the one that
decides, and their number."""


class ChangeJson(TypedDict):
    """An object to apply. `file` is where an existing one was read, `kept_by` what writes it again with its next release."""

    object: dict[str, Any]
    new: bool
    what: str
    file: NotRequired[str]
    kept_by: NotRequired[str]


class AddedLabelJson(TypedDict):
    """A label that the pod template of a workload needs first; the pod itself where `kind` is "Pod"."""

    kind: str
    namespace: str
    name: str
    key: str
    value: str
    pods: list[str]


class OptionJson(TypedDict):
    """One way to admit the flow, what else it would admit, the open pods that it would isolate, and the labels that pods need
    first, since all of theirs change with a release."""

    changes: list[ChangeJson]
    also_admits: list[FlowEnds]
    isolates: list[str]
    labels: NotRequired[list[AddedLabelJson]]


class LineErrorJson(TypedDict):
    """A line of `explain --flows` that could not be read, in its place."""

    line: int
    error: str


class PatchJson(TypedDict):
    edit: OptionJson | None
    new: OptionJson | None


ExplanationJson = TypedDict(
    "ExplanationJson",
    {
        "from": str,
        "to": str,
        "protocol": str,
        "port": int,
        "service": NotRequired[str],
        "verdict": str,
        "egress": DirectionJson,
        "ingress": DirectionJson,
        "arrival": NotRequired[str],
        "enforcer": NotRequired[EnforcerJson],
        "dns": NotRequired[DnsWayJson],
        "patch": NotRequired[PatchJson],
        "no_patch": NotRequired[str],
    },
)


def ref_text(ref: ObjectRef) -> str:
    """ "namespace/name" for a NetworkPolicy, with the kind before it ("Kind/namespace/name", "Kind/name") for the others."""
    name = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    return name if ref.kind == "NetworkPolicy" else f"{ref.kind}/{name}"


def flow_json(explanation: Explanation, *, rules: bool = False) -> FlowJson:
    """One line of the batch output; with `rules`, each policy's rules and their failing terms too."""
    return {
        "verdict": explanation.verdict.value,
        "egress": _direction(explanation.egress, rules),
        "ingress": _direction(explanation.ingress, rules),
    }


def explanation_json(explanation: Explanation, service: str = "") -> ExplanationJson:
    """The flow and the whole answer for it."""
    flow, answer = explanation.flow, flow_json(explanation, rules=True)
    value: ExplanationJson = {
        "from": str(flow.source),
        "to": str(flow.destination),
        "protocol": flow.protocol,
        "port": flow.port,
        "verdict": answer["verdict"],
        "egress": answer["egress"],
        "ingress": answer["ingress"],
    }
    if service:
        value["service"] = service
    if explanation.arrival:
        value["arrival"] = explanation.arrival
    return value


def explained_json(
    explanation: Explanation,
    service: str,
    enforcer: Enforcer,
    deviations: Sequence[Deviation],
    dns: DnsWay | None,
    patch: Patch | None,
    no_patch: str = "",
) -> ExplanationJson:
    """A record of `explain`: the answer, what stands around it, and what would admit the flow. `no_patch` says why there is no
    patch, or none with a new policy."""
    value = explanation_json(explanation, service)
    around = circumstances_json(enforcer, deviations, dns)
    value["enforcer"] = around["enforcer"]
    if "dns" in around:
        value["dns"] = around["dns"]
    if patch is not None:
        value["patch"] = patch_json(patch)
    if no_patch:
        value["no_patch"] = no_patch
    return value


def patch_json(patch: Patch) -> PatchJson:
    """Both options: the objects to apply, and what else each admits."""
    return {"edit": _option(patch.edit), "new": _option(patch.new)}


def _option(option: PatchOption | None) -> OptionJson | None:
    if option is None:
        return None
    value: OptionJson = {
        "changes": [_change(change) for change in option.changes],
        "also_admits": [{"from": a, "to": b} for a, b in option.also_admits],
        "isolates": list(option.isolates),
    }
    if option.labels:
        value["labels"] = [_added_label(label) for label in option.labels]
    return value


def _added_label(label: AddedLabel) -> AddedLabelJson:
    return {
        "kind": label.kind,
        "namespace": label.namespace,
        "name": label.name,
        "key": label.key,
        "value": label.value,
        "pods": list(label.pods),
    }


def _change(change: PolicyChange) -> ChangeJson:
    value: ChangeJson = {"object": change.object, "new": change.is_new, "what": change.what}
    if change.file:
        value["file"] = change.file
    if change.keeper:
        value["kept_by"] = change.keeper
    return value


def _direction(result: DirectionResult, rules: bool) -> DirectionJson:
    out: DirectionJson = {
        "verdict": result.verdict.value,
        "isolated_by": [ref_text(r) for r in result.isolated_by],
        "admitted_by": [ref_text(r) for r in result.admitted_by],
        "policies": [_policy(p, rules) for p in result.policies],
    }
    if rules or not result.policies or result.reason is Reason.EITHER_WAY:
        outside = result.reason is Reason.OUTSIDE and not rules
        out["reason"] = Reason.DEFAULT.value if outside else result.reason.value
    if result.not_evaluated:
        out["not_evaluated"] = [str(n) for n in result.not_evaluated]
    return out


def _policy(result: PolicyResult, rules: bool) -> PolicyJson:
    out: PolicyJson = {
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


def _rule(result: RuleResult) -> RuleJson:
    out: RuleJson = {"rule": result.number, "action": result.action.value, "matches": result.matches}
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
