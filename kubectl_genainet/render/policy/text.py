"""Policy answers for people: the verdict, then per direction who isolates, which rule admits, which term fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml
from rich.console import Console
from rich.text import Text

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.model import (
    Direction,
    DirectionResult,
    Effect,
    Explanation,
    PolicyFamily,
    PolicyResult,
    PolicyVerdict,
    Reason,
    RuleAction,
)
from kubectl_genainet.policy.patches.patch import Patch, PatchOption
from kubectl_genainet.render.paragraphs import print_prose
from kubectl_genainet.render.text import printable

VERDICT_STYLE = {PolicyVerdict.ALLOW: "green", PolicyVerdict.DENY: "bold red", PolicyVerdict.UNKNOWN: "yellow"}
_MOST_LISTED = 20


def print_explanation(console: Console, explanation: Explanation, service: str = "", *, alike: int = 0) -> None:
    """One flow with its reasons; `alike` further flows have the same answer."""
    flow = explanation.flow
    via = f" (through Service {service})" if service else ""
    more = f", and {alike} more alike" if alike else ""
    text = f"{flow.source} → {flow.destination} {flow.protocol} {flow.port}{via}{more}"
    style = VERDICT_STYLE[explanation.verdict]
    print_prose(console, Text.assemble((explanation.verdict.value.upper(), style), " ", printable(text)))
    if explanation.arrival:
        print_prose(console, Text(printable(explanation.arrival), style="yellow"), indent=2)
    _print_direction(console, Direction.EGRESS, str(flow.source), explanation.egress)
    _print_direction(console, Direction.INGRESS, str(flow.destination), explanation.ingress)


def _print_direction(console: Console, direction: Direction, own: str, result: DirectionResult) -> None:
    style = VERDICT_STYLE[result.verdict]
    of = "from" if direction is Direction.EGRESS else "into"
    head = printable(f"{direction.value} {of} {own}: ")
    why = printable(f", {_why(result)}")
    print_prose(console, Text.assemble(head, (result.verdict.value, style), why), indent=2)
    for policy in result.policies:
        for line in policy_lines(policy):
            blanks = len(line) - len(line.lstrip())
            print_prose(console, Text(printable(line.lstrip())), indent=4 + blanks)
    for note in result.not_evaluated:
        print_prose(console, Text.assemble(("not evaluated", "yellow"), f" {printable(str(note))}"), indent=4)


def _why(result: DirectionResult) -> str:
    isolated = "isolated by " + _names(result.isolated_by) if result.isolated_by else ""
    match result.reason:
        case Reason.DEFAULT:
            return "no policy selects the pod, or none of their rules applies"
        case Reason.INERT:
            return "nothing on the cluster enforces policies, so all of them are inert"
        case Reason.OUTSIDE:
            return "not a pod, so no policy governs this end"
        case Reason.HOST_NETWORK:
            return "the pod uses its node's network, and policies don't select such pods"
        case Reason.OWN_NODE:
            return "a pod and the node that runs it may always talk"
        case Reason.LOOPBACK:
            return "a pod may always reach itself"
        case Reason.ISOLATED:
            return f"{isolated}; no rule admits the flow"
        case Reason.NOT_EVALUATED:
            return f"{isolated + '; ' if isolated else ''}it depends on what is not evaluated"
        case Reason.EITHER_WAY:
            return "it passes in either case: what is not evaluated changes nothing"
        case Reason.RULE:
            return isolated or "a rule decides"


def _names(refs: Sequence[ObjectRef]) -> str:
    shown = ", ".join(map(str, refs[:_MOST_LISTED]))
    return shown + (f" and {len(refs) - _MOST_LISTED} more" if len(refs) > _MOST_LISTED else "")


def policy_lines(policy: PolicyResult) -> Iterator[str]:
    """What one policy does to the flow, and the failing term of each rule that does not match."""
    name = str(policy.ref)
    if policy.family is PolicyFamily.OTHER:
        yield f"{name}: is not evaluated"
        return
    rule = f"rule {policy.rule}" + (f" ({policy.rule_name})" if policy.rule_name else "")
    match policy.effect:
        case Effect.ALLOWS:
            yield f"{name}: {rule} {'admits' if policy.isolates else 'allows'} it"
        case Effect.DENIES:
            yield f"{name}: {rule} denies it"
        case Effect.PASSES:
            yield f"{name}: {rule} leaves it to the next tier"
        case Effect.UNKNOWN:
            yield f"{name}: {rule} may match"
        case Effect.NO_RULES:
            yield f"{name}: isolates the pod and has no rule"
        case _:
            yield f"{name}: isolates the pod"
            yield from rule_lines(policy)


def rule_lines(policy: PolicyResult) -> Iterator[str]:
    for rule in policy.rules:
        if rule.failed and rule.action is not RuleAction.LOG:
            failed = rule.failed
            yield f"  rule {rule.number}: {failed} ({failed.field})"


def print_patch(console: Console, patch: Patch) -> None:
    """Both options, with what else each admits."""
    for title, option in (("edit", patch.edit), ("new policy", patch.new)):
        if option is not None:
            what = "; ".join(f"{c.ref}: {c.what}" for c in option.changes)
            print_prose(console, Text.assemble((f"to admit it, {title}", "bold"), f": {printable(what)}"), indent=2)
            print_prose(console, Text(printable(_also(option))), indent=4)
            for line in (*added_label_lines(option), *origin_lines(option)):
                print_prose(console, Text(printable(line), style="yellow"), indent=4)
            if option.isolates:
                print_prose(console, Text(printable(isolates_text(option)), style="yellow"), indent=4)
            for line in patch_yaml(option).splitlines():
                console.print(Text(f"    {printable(line)}"), soft_wrap=True)


def print_no_patch(console: Console, why: str) -> None:
    """Why there is no patch, or none with a new policy."""
    if why:
        print_prose(console, Text(printable(why), style="yellow"), indent=2)


def _also(option: PatchOption) -> str:
    if not option.also_admits:
        return "admits no other flow between the pods that there are now"
    shown = ", ".join(f"{a} → {b}" for a, b in option.also_admits[:_MOST_LISTED])
    more = len(option.also_admits) - _MOST_LISTED
    return f"also admits: {shown}" + (f" and {more} more" if more > 0 else "")


def isolates_text(option: PatchOption) -> str:
    """What an option stops: pods that were open are isolated by it."""
    number = len(option.isolates)
    shown = ", ".join(option.isolates[:_MOST_LISTED]) + (", …" if number > _MOST_LISTED else "")
    were = "pod that was" if number == 1 else "pods that were"
    return f"Adding this policy isolates {number} {were} open: {shown}. Whatever else they exchange stops."


def added_label_lines(option: PatchOption) -> Iterator[str]:
    """The labels that pods need before the option does anything."""
    for label in option.labels:
        pods = ", ".join(label.pods[:_MOST_LISTED]) + (", …" if len(label.pods) > _MOST_LISTED else "")
        yield (
            f"First add the label {label.key}: {label.value} to {label.place}. No label of {pods} is sure to outlast a release "
            "or a replica, so no policy can name them by those that they have."
        )


def origin_lines(option: PatchOption) -> Iterator[str]:
    """Where each policy that an option edits has to be changed, so that the change lasts."""
    for change in option.changes:
        if change.keeper:
            read = f" It was read from {change.file}." if change.file else ""
            yield f"{change.ref} is kept by {change.keeper}: make the change there, or the next release undoes it.{read}"
        elif change.file:
            yield f"{change.ref} is in {change.file}: make the change there."


def patch_yaml(option: PatchOption) -> str:
    """The objects of an option as YAML documents for `kubectl apply -f -`."""
    return str(yaml.safe_dump_all((c.object for c in option.changes), sort_keys=False, default_flow_style=False))


def grouped(explained: Sequence[tuple[Explanation, str]]) -> list[list[tuple[Explanation, str]]]:
    """Flows with the same answer together: the replicas of a workload mostly have the same one."""
    groups: dict[object, list[tuple[Explanation, str]]] = {}
    for explanation, service in explained:
        groups.setdefault((_answer(explanation), service), []).append((explanation, service))
    return list(groups.values())


def _answer(explanation: Explanation) -> object:
    """What an explanation says, less the names of the pods."""
    flow = explanation.flow
    sides = tuple(
        (side.verdict, side.reason, side.isolated_by, tuple((p.ref, p.effect, p.rule) for p in side.policies))
        for side in (explanation.egress, explanation.ingress)
    )
    return (flow.source.namespace, flow.destination.namespace, flow.protocol, flow.port, sides)
