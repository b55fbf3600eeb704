"""What could have been the cause: looked at one by one, and said to be fine, faulty, or not checked and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubectl_genainet.context.context import Context
from kubectl_genainet.context.judging import policy_flow
from kubectl_genainet.context.unread import unread
from kubectl_genainet.diagnose.endpoints import readiness_of
from kubectl_genainet.diagnose.reach import Reach
from kubectl_genainet.model.diagnoses import Suspect, suspects_of
from kubectl_genainet.model.finding import Finding, Severity, counted, listed
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.kube import Service
from kubectl_genainet.model.results.diagnosis import Cause, Checked, CheckState
from kubectl_genainet.policy import PolicyEngine, PolicyVerdict
from kubectl_genainet.proxy import compare

FULL = 0.9  # of a node's connection table, from which it is not called fine


@dataclass(frozen=True, slots=True)
class Watched:
    """What one run saw, as far as the checks ask for it. `failures` says why a part of it is missing, by verb; `drift` is what
    `drift_of` found."""

    context: Context
    services: tuple[Service, ...]
    nodes: tuple[str, ...]
    silent_nodes: tuple[str, ...]
    lost: int | None
    reach: Reach
    queries: int
    unanswered: int
    failures: dict[str, str]
    drift: tuple[Finding, ...] = ()
    gaps: tuple[Gap, ...] = ()  # what a recording does not have
    failed_nodes: tuple[str, ...] = ()  # whose agent did not answer, or could not go on
    unread: tuple[str, ...] = ()  # nodes whose rules may not have been read since the endpoints changed


def drift_of(context: Context, nodes: Sequence[str], services: tuple[Service, ...]) -> tuple[Finding, ...]:
    """What the nodes' rules do with the Services that the API does not say, where it breaks connections."""
    read = {node: context.rulesets.of(node)[0] for node in nodes}
    parsed = {node: ruleset for node, ruleset in read.items() if ruleset is not None}
    if not parsed or not services:
        return ()
    compared = compare(context.identity.snapshot, parsed, services=services)
    return tuple(finding for finding in compared if finding.severity is Severity.ERROR)


def checked(watched: Watched, causes: Sequence[Cause]) -> tuple[Checked, ...]:
    """Each thing that could have been the cause, in the order of a packet's way."""
    results = []
    for suspect, look in _LOOKS.items():
        blamed = next((c for c in causes for name in _names(c) if suspect in suspects_of(name)), None)
        state, why = (CheckState.FAULTY, blamed.title) if blamed is not None else look(watched)
        results.append(Checked(suspect.value, state, why))
    return tuple(results)


def _names(cause: Cause) -> Iterator[str]:
    yield cause.check
    yield from (symptom.check for symptom in cause.symptoms)


def _dns(watched: Watched) -> tuple[CheckState, str]:
    if "dns" in watched.failures:
        return CheckState.NOT_CHECKED, watched.failures["dns"]
    if not watched.queries:
        return CheckState.NOT_CHECKED, "no DNS query of a caller was seen"
    if watched.unanswered:
        return CheckState.FAULTY, f"{watched.unanswered} of {watched.queries} queries got no answer"
    return CheckState.FINE, f"{counted(watched.queries, 'query')} answered"


def _policies(watched: Watched) -> tuple[CheckState, str]:
    context = watched.context
    if context.engine is None:
        return CheckState.NOT_CHECKED, context.not_judged
    if not watched.reach.seen:
        return CheckState.NOT_CHECKED, "no connection was seen to judge them by"
    if "drops" in watched.failures:
        return CheckState.NOT_CHECKED, f"drops were not counted: {watched.failures['drops']}"
    if not watched.reach.met_pod:
        return _judged_only(context, context.engine, watched.reach)
    return CheckState.FINE, "none dropped a connection, and no bypass was seen"


def _judged_only(context: Context, engine: PolicyEngine, reach: Reach) -> tuple[CheckState, str]:
    """Where none of the connections met the policies on its way."""
    verdicts = {engine.explain(policy_flow(flow, context.identity.snapshot)).verdict for flow in reach.flows}
    if verdicts == {PolicyVerdict.ALLOW}:
        return CheckState.FINE, "by the API's objects they admit what was seen; none of it came as far as a pod"
    if PolicyVerdict.DENY in verdicts:
        return CheckState.NOT_CHECKED, "no connection came as far as a pod; by the API's objects not all are admitted"
    return CheckState.NOT_CHECKED, "no connection came as far as a pod, so none shows what they do"


def _endpoints(watched: Watched) -> tuple[CheckState, str]:
    if not watched.services:
        return CheckState.NOT_CHECKED, "the target is no Service"
    if why := _unread_endpoints(watched):
        return CheckState.NOT_CHECKED, why
    readiness = list(readiness_of(watched.context.identity.snapshot, watched.services))
    if not readiness:
        return CheckState.NOT_CHECKED, "an ExternalName has none"
    without = next((found for found in readiness if not found.ready), None)
    if without is not None:
        return CheckState.FAULTY, str(without)
    return CheckState.FINE, ", ".join(map(str, readiness))


def _unread_endpoints(watched: Watched) -> str:
    snapshot = watched.context.identity.snapshot
    reasons = (unread(snapshot, "EndpointSlice", service.metadata.namespace) for service in watched.services)
    return next(filter(None, reasons), "")


def _rules(watched: Watched) -> tuple[CheckState, str]:
    if not watched.services:
        return CheckState.NOT_CHECKED, "the target is no Service"
    read = {node: watched.context.rulesets.of(node) for node in watched.nodes}
    parsed = {node: rules for node, (rules, _) in read.items() if rules is not None}
    if not parsed:
        why = "; ".join(dict.fromkeys(error for _, error in read.values() if error)) or "no node reported its rules"
        return CheckState.NOT_CHECKED, why
    if watched.drift:
        return CheckState.FAULTY, watched.drift[0].title
    if watched.unread:
        whose = ", ".join(watched.unread)
        return (
            CheckState.NOT_CHECKED,
            f"the endpoints changed shortly before the end; the rules of {whose} may be older",
        )
    if why := _unread_endpoints(watched):
        return CheckState.NOT_CHECKED, why
    missing = len(read) - len(parsed)
    others = f"; those of {counted(missing, 'node')} were not read" if missing else ""
    return CheckState.FINE, f"the rules of {counted(len(parsed), 'node')} match the EndpointSlices{others}"


def _mtu(watched: Watched) -> tuple[CheckState, str]:
    if not watched.reach.carried:
        return CheckState.NOT_CHECKED, _nothing_carried(watched.reach)
    return CheckState.FINE, "no packet was larger than an MTU on its path"


def _conntrack(watched: Watched) -> tuple[CheckState, str]:
    fills = []
    for node in watched.nodes:
        host = watched.context.identity.host_of(node)
        if host is not None and host.conntrack_count is not None and host.conntrack_max:
            fills.append((host.conntrack_count / host.conntrack_max, node))
    if not fills:
        return CheckState.NOT_CHECKED, "no node said how full its connection table is"
    share, node = max(fills)
    state = CheckState.FAULTY if share >= FULL else CheckState.FINE
    return state, f"connection tables are at most {share:.0%} full ({node})"


def _nodes(watched: Watched) -> tuple[CheckState, str]:
    if watched.failed_nodes:
        whose = listed(watched.failed_nodes)
        return CheckState.NOT_CHECKED, f"the agents of {whose} failed: what was not seen may have been wrong"
    if watched.silent_nodes:
        return CheckState.NOT_CHECKED, f"the agents of {', '.join(watched.silent_nodes)} stopped reporting"
    if not watched.nodes:
        return CheckState.NOT_CHECKED, "no agent reported"
    if watched.lost is None:
        return CheckState.NOT_CHECKED, "not every node said how much it lost"
    if watched.lost:
        return CheckState.NOT_CHECKED, f"{counted(watched.lost, 'event')} lost: what was not seen may have been wrong"
    holes = sorted({gap.node for gap in watched.gaps if gap.node})
    if holes:
        whose = ", ".join(holes)
        return CheckState.NOT_CHECKED, f"what was recorded of {whose} has gaps: what was not seen may have been wrong"
    return CheckState.FINE, f"{counted(len(watched.nodes), 'agent')} reported, no event lost"


def _answers(watched: Watched) -> tuple[CheckState, str]:
    reach = watched.reach
    if not reach.carried:
        return CheckState.NOT_CHECKED, _nothing_carried(reach)
    if reach.answered < reach.carried / 2:  # they may be slow, or wait for something: nobody has seen it
        of = counted(reach.carried, "connection")
        return CheckState.NOT_CHECKED, f"of {of} that carried data only {reach.answered} had an answer until the end"
    never = f"; {reach.seen - reach.established} were never established" if reach.seen > reach.established else ""
    established = counted(reach.established, "established connection")
    return CheckState.FINE, f"{reach.answered} of {established} were answered{never}"


def _nothing_carried(reach: Reach) -> str:
    if not reach.seen:
        return "no connection was seen"
    return "no connection carried data" if reach.established else "no connection was established"


_LOOKS: Mapping[Suspect, Callable[[Watched], tuple[CheckState, str]]] = {
    Suspect.DNS: _dns,
    Suspect.POLICIES: _policies,
    Suspect.ENDPOINTS: _endpoints,
    Suspect.RULES: _rules,
    Suspect.MTU: _mtu,
    Suspect.CONNTRACK: _conntrack,
    Suspect.NODES: _nodes,
    Suspect.ANSWERS: _answers,
}
