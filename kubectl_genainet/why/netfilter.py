"""Why a netfilter hook dropped a packet: a rule, the connection table, or what connection tracking made of the packet."""

from __future__ import annotations

import dataclasses
import re

import msgspec

from kubectl_genainet.context.unread import unread
from kubectl_genainet.model.cluster import ClusterSnapshot, ServiceAddress
from kubectl_genainet.model.diagnoses import Diagnosis
from kubectl_genainet.model.diagnoses.rules import (
    CONNTRACK_FULL,
    CONNTRACK_INVALID,
    CONNTRACK_RACE,
    DEVICE_RULE_DROP,
    KUBE_PROXY_DROP,
    NETFILTER_DROP,
    NO_ENDPOINTS,
    NO_SUCH_PORT,
    POLICY_DISAGREEMENT,
    POLICY_DROP,
    REDIRECT_WITHOUT_LISTENER,
    REJECTED_BY_RULE,
    RULE_DROP,
    SNAT_PORTS_EXHAUSTED,
)
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Hook, Packet, RuleRef, Ruleset, evaluate, evaluate_hook
from kubectl_genainet.proxy.authors import is_kube_proxys
from kubectl_genainet.proxy.enforcers import enforcers_in, policy_behind
from kubectl_genainet.proxy.evaluator.model import masquerades
from kubectl_genainet.why.drop_context import DropContext, DropExplanation, assumed, derived, observed
from kubectl_genainet.why.policies import PolicyStatement, policy_statement
from kubectl_genainet.why.services import missing_port

_DNS_PORT = 53


def netfilter(context: DropContext) -> DropExplanation:
    """A netfilter hook said DROP: the rules of its namespace are walked for this packet at that hook."""
    event = context.event
    policy = policy_statement(context)
    if context.named is not None:
        return _named_rule(context, context.named, policy)
    if event.hook in ("INGRESS", "EGRESS"):
        device = event.device or "a device"
        note = f"a rule of a netdev table dropped it at the {event.hook.lower()} of {device} in {context.place}"
        how = "nft list ruleset, or what the node's firewall or security agent sets up; these rules are not evaluated"
        return DropExplanation(DEVICE_RULE_DROP, f"{note} ({how})", Certainty.DERIVED)
    if context.ruleset is None or Hook.named(event.hook) is None:
        why = context.ruleset_error or (
            "the hook could not be read from the stack"
            if not event.hook
            else f"the rules of {context.place} were not read"
            if context.ruleset is None
            else f"no rules stand at {event.hook}, as far as this version knows"
        )
        note = f"a netfilter rule dropped it; which one is not known ({why})"
        return _unnamed(note, policy)
    rule = _dropping_rule(context, context.ruleset, _usual_state(context))
    if rule is not None:
        return _given_to_nobody(context, rule) or _named_rule(context, rule, policy)
    known = (
        _invalid(context, context.ruleset)
        or _not_for_granted(context, context.ruleset, policy)
        or _conntrack_full(context)
        or _failed_insertion(context)
        or _gone(context, policy)
    )
    if known is not None:
        return known
    note = f"no rule that was read in {context.place} drops this packet in {event.hook}"
    return DropExplanation(
        NETFILTER_DROP,
        f"{note}: another table, or rules that changed since. {policy.said}".rstrip(),
        Certainty.UNKNOWN,
        None,
        policy.policies,
        (*policy.evidence, derived(note, event.node)),
    )


def _gone(context: DropContext, policy: PolicyStatement) -> DropExplanation | None:
    """A rule that drops the packet was there before, and is gone now."""
    for ruleset in context.earlier():
        rule = _dropping_rule(context, ruleset, _usual_state(context))
        if rule is not None:
            reading = _named_rule(context, rule, policy)
            return dataclasses.replace(reading, explanation=f"{reading.explanation} (the rule is gone now)")
    return None


def _unnamed(note: str, policy: PolicyStatement) -> DropExplanation:
    return DropExplanation(
        NETFILTER_DROP,
        f"{note}. {policy.said}" if policy.said else note,
        Certainty.ASSUMED if policy.said else Certainty.UNKNOWN,
        None,
        policy.policies,
        policy.evidence,
    )


def _usual_state(context: DropContext) -> str:
    """The packet's connection tracking state: the one that the kernel gave it, else the one that such packets have. What is
    INVALID is no part of a connection, so what rules do with such a packet is looked for apart (`_invalid`)."""
    if context.event.ct_state not in ("", "INVALID"):
        return context.event.ct_state
    if context.event.tunnel is not None:
        return "NEW"
    if context.icmp is not None:
        return "RELATED"
    return "ESTABLISHED" if context.established else "NEW"


def _evaluated(context: DropContext, ruleset: Ruleset, state: str, *, strict: bool = False) -> Evaluation:
    packet = msgspec.structs.replace(Packet.of(context.flow, ct_state=state), icmp=context.icmp)
    return evaluate_hook(ruleset, packet, context.event.hook, strict=strict)


def _dropping_rule(context: DropContext, ruleset: Ruleset, state: str) -> RuleRef | None:
    """The first rule of the hook that drops the packet, or may have: it was dropped."""
    return next(iter(_evaluated(context, ruleset, state).dropping_rules), None)


def _invalid(context: DropContext, ruleset: Ruleset) -> DropExplanation | None:
    """Only as INVALID does a rule drop the packet: connection tracking did not take it for part of a connection. Where the
    kernel does not say what it took this packet for, the node's counter must have grown."""
    if context.event.ct_state not in ("", "INVALID"):
        return None
    rule = _dropping_rule(context, ruleset, "INVALID")
    if rule is None:
        return None
    grown = context.identity.grown(context.event.node, context.event.netns, "conntrack_invalid")
    host = context.identity.host_of(context.event.node)
    if not context.event.ct_state and grown <= 0 and host is not None and "conntrack_invalid" in host.counters:
        return None  # nothing was INVALID
    counted = (observed(f"conntrack -S: invalid grew by {grown}", context.event.node),) if grown > 0 else ()
    if context.event.ct_state:
        counted = (observed("the packet has no connection tracking entry (INVALID)", context.event.node), *counted)
    statement = (
        f"connection tracking in {context.place} took it for INVALID (outside the window, a wrong checksum, or no connection "
        "that it knows), and a rule drops what is INVALID"
    )
    met = derived(f"no rule drops it as {_usual_state(context)}; rule {rule.index} of {rule.chain} drops INVALID")
    return DropExplanation(CONNTRACK_INVALID, statement, Certainty.DERIVED, rule_text(rule), evidence=(met, *counted))


def _not_for_granted(context: DropContext, ruleset: Ruleset, policy: PolicyStatement) -> DropExplanation | None:
    """Rules that drop only what exceeds a limit, or meets another condition that packets seldom do."""
    ways = _evaluated(context, ruleset, _usual_state(context), strict=True).outcomes
    rules = list(dict.fromkeys(way.final_rule for way in ways if way.final_rule is not None))
    if not rules:
        return None
    named = _named_rule(context, rules[0], policy)
    others = "".join(f"; {rule_text(rule)} may have as well" for rule in rules[1:3])
    condition = derived(f"the rule has a condition that can't be read afterwards, such as a limit{others}")
    return dataclasses.replace(named, evidence=(*named.evidence, condition))


def _given_to_nobody(context: DropContext, rule: RuleRef) -> DropExplanation | None:
    """TPROXY gives the packet to a socket of the proxy, and drops it where there is none (net/netfilter/xt_TPROXY.c)."""
    if not _TPROXY.search(rule.bare_text):
        return None
    port = _TPROXY_PORT.search(rule.bare_text)
    to = f" on port {port[1] or port[2]}" if port else ""
    statement = (
        f"{context.place} gives packets for {context.flow.protocol.value} port {context.flow.dport} to a transparent proxy{to}, "
        "and no socket takes them there: the proxy (a sidecar) does not run"
    )
    met = derived(f"rule {rule.index} of {rule.chain} ends the walk in {context.event.hook}", context.event.node)
    return DropExplanation(REDIRECT_WITHOUT_LISTENER, statement, Certainty.DERIVED, rule_text(rule), evidence=(met,))


_TPROXY = re.compile(r"-j TPROXY\b|\btproxy\b")
_TPROXY_PORT = re.compile(r"--on-port (\d+)|tproxy(?: ip6?)? to \S*:(\d+)")
_REJECT_WITH = re.compile(r"--reject-with (\S+)|reject with (.+?)(?: comment|$)")


def told_by(rule: RuleRef) -> str | None:
    """How a rule answers the sender of what it takes: "icmp-port-unreachable", "tcp reset"; None for one that drops."""
    if "reject" not in rule.bare_text.lower():
        return None
    match = _REJECT_WITH.search(rule.bare_text)
    return (match[1] or match[2]).strip() if match else "icmp-port-unreachable"  # iptables-extensions(8), nft(8)


def rule_text(rule: RuleRef) -> str:
    return f"{rule.table} {rule.chain} rule {rule.index}: {rule.text.removeprefix(f'-A {rule.chain} ')}"


def _named_rule(context: DropContext, rule: RuleRef, policy: PolicyStatement) -> DropExplanation:
    text = rule_text(rule)
    known = [(o.namespace, o.name) for o in context.identity.snapshot.of("NetworkPolicy")]
    behind = policy_behind(rule, context.ruleset, known, (context.flow.src, context.flow.dst))
    reply = told_by(rule)
    certainty = Certainty.DERIVED if context.named is None else Certainty.OBSERVED
    how = (
        f"ends the walk in {context.event.hook}"
        if context.named is None
        else "dropped this packet: the kernel names it"
    )
    met = Evidence(f"rule {rule.index} of {rule.chain} {how}", certainty, node=context.event.node)

    def reading(diagnosis: Diagnosis, statement: str, policies: tuple[str, ...] = ()) -> DropExplanation:
        return DropExplanation(diagnosis, statement, Certainty.DERIVED, text, policies, (met, *policy.evidence), reply)

    if is_kube_proxys(rule):  # policies know no address of a Service, and have no part in it
        diagnosis, statement = _refused_by_kube_proxy(context, rule)
        return DropExplanation(diagnosis, statement, Certainty.DERIVED, text, (), (met,), reply)
    if policy.said and not (behind is None and _has_enforcer(context.ruleset)):
        return reading(POLICY_DROP, policy.said, policy.policies)
    if behind is not None:
        names = ", ".join(behind.policies) or "no policy that could be named"
        whose = f"the rule is {behind.enforcer}'s, for {names}"
        if not policy.admits:
            return reading(POLICY_DROP, whose, behind.policies)
        note = f"{whose}, but by the API's objects the flow is admitted: the node's rules and the objects disagree"
        return reading(POLICY_DISAGREEMENT, note, behind.policies)
    return _of_nobody(context, rule, policy, met)


def _has_enforcer(ruleset: Ruleset | None) -> bool:
    """Whether a known policy enforcer has rules there: then one of another's is no policy's."""
    return ruleset is not None and any(enforcers_in(ruleset, table.title) for table in ruleset.tables)


def _of_nobody(context: DropContext, rule: RuleRef, policy: PolicyStatement, met: Evidence) -> DropExplanation:
    """No known policy enforcer wrote the rule, whatever the policies say: these are named where they keep the flow out too."""
    reply = told_by(rule)
    verb = "rejects" if reply else "drops"
    statement = f"a rule of {context.where} {verb} {context.what}: {rule.comment or rule.text}"
    if policy.admits:
        statement += "; the policies admit the flow, so no NetworkPolicy is behind it"
    elif policy.said:
        statement += "; without it the policies would keep the flow out"
    said = (assumed(policy.said),) if policy.said else ()
    return DropExplanation(
        REJECTED_BY_RULE if reply else RULE_DROP,
        statement,
        Certainty.DERIVED,
        rule_text(rule),
        policy.policies,
        (met, *said, *policy.evidence),
        reply,
    )


def _refused_by_kube_proxy(context: DropContext, rule: RuleRef) -> tuple[Diagnosis, str]:
    """What a rule of kube-proxy's own means for the address that the packet was sent to."""
    snapshot, flow = context.identity.snapshot, context.flow
    service_port = snapshot.service_at(flow.dst, flow.dport, flow.protocol.value)
    if service_port is not None and _is_without_endpoints(snapshot, service_port):
        meta = service_port.service.metadata
        statement = f"Service {meta.namespace}/{meta.name} has no ready endpoint, so kube-proxy refuses its connections"
        return NO_ENDPOINTS, statement
    if missing := missing_port(context):
        return NO_SUCH_PORT, missing
    verb = "rejects" if told_by(rule) else "drops"
    return KUBE_PROXY_DROP, f"kube-proxy's rule on {context.where} {verb} it: {rule.comment or rule.text}"


def _is_without_endpoints(snapshot: ClusterSnapshot, address: ServiceAddress) -> bool:
    service, port = address.service, address.port
    is_read = not unread(snapshot, "EndpointSlice", service.metadata.namespace)
    return is_read and not any(backend.ready for backend in snapshot.backends(service, port))


def _conntrack_full(context: DropContext) -> DropExplanation | None:
    """The connection tracking table of the namespace was full when it was last looked at."""
    netns = context.identity.namespaces.get((context.event.node, context.event.netns))
    if netns is None or netns.conntrack_count is None or netns.conntrack_max is None:
        return None
    if netns.conntrack_count < netns.conntrack_max * 0.95 or context.event.hook not in ("PRE_ROUTING", "OUTPUT"):
        return None
    fill = f"nf_conntrack_count {netns.conntrack_count} of nf_conntrack_max {netns.conntrack_max}"
    return DropExplanation(
        CONNTRACK_FULL,
        f"the connection tracking table of {context.place} is full, so a new connection can't be entered ({fill})",
        Certainty.DERIVED,
        evidence=(observed(fill, context.event.node), derived("no rule explains the drop", context.event.node)),
    )


def _failed_insertion(context: DropContext) -> DropExplanation | None:
    """The connection's entry could not be made when it was confirmed, the last thing that happens in POST_ROUTING and
    INPUT (nf_confirm, net/netfilter/nf_conntrack_proto.c): its tuple was taken meanwhile."""
    event = context.event
    grown = context.identity.grown(event.node, event.netns, "conntrack_insert_failed")
    if event.hook not in ("POST_ROUTING", "INPUT") or context.established or grown <= 0:
        return None
    evidence = (
        observed(f"conntrack -S: insert_failed grew by {grown}", event.node),
        derived("no rule explains the drop", event.node),
    )
    rule = _source_rule(context) if event.hook == "POST_ROUTING" else None
    if context.flow.protocol is Protocol.TCP and event.hook == "POST_ROUTING":
        statement = (
            f"{context.place} found no free source port for a connection to {context.flow.destination}: the addresses and ports "
            "that its source NAT may use are all taken for this destination"
        )
        text = rule_text(rule) if rule is not None else None
        return DropExplanation(SNAT_PORTS_EXHAUSTED, statement, Certainty.DERIVED, text, evidence=evidence)
    race = f"two packets of one flow raced for its entry in the connection table of {context.place}, and this one lost"
    if context.flow.protocol is Protocol.UDP and context.flow.dport == _DNS_PORT:
        race += ": typical of A and AAAA queries from one socket"
    elif rule is not None:
        race += ", or its source NAT found no free port"
    return DropExplanation(CONNTRACK_RACE, race, Certainty.DERIVED, evidence=evidence)


def _source_rule(context: DropContext) -> RuleRef | None:
    """The rule that translates the packet's source on its way out; None where that is not known."""
    if context.ruleset is None:
        return None
    for outcome in evaluate(context.ruleset, Packet.of(context.asked or context.flow)).outcomes:
        for rule in outcome.rules:
            if masquerades(rule):
                return rule
    return None
