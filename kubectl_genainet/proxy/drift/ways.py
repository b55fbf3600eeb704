"""The packet's way through all of a node's rules, for each address of a Service and each kind of client.

kube-proxy's own chains may be right and packets go elsewhere all the same: another program's translation takes them
first (portmap, a rule by hand), or a firewall refuses a part of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.diagnoses.kube_proxy import SERVICE_PARTLY_REFUSED, SERVICE_TAKEN_BY_OTHERS
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, NotChecked
from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.model.packet import Protocol, address_text
from kubectl_genainet.proxy.authors import author_of, is_kube_proxys
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.enforcers import policy_behind
from kubectl_genainet.proxy.evaluator.evaluate import evaluate
from kubectl_genainet.proxy.evaluator.model import Evaluation, Packet, RulesetVerdict
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.names import service_port_name

MAX_WAYS = 4000  # of all Services on one node that are looked at
OUTSIDE = {4: "192.0.2.1", 6: "2001:db8::1"}  # addresses of nobody (RFC 5737, RFC 3849)
_REFUSALS = (RulesetVerdict.DROP, RulesetVerdict.REJECT)

Way = tuple[Service, ServicePort, str, str, int]  # client kind, address, port


def ways_of_packets(
    snapshot: ClusterSnapshot, nodes: Sequence[NodeRules], services: Sequence[Service]
) -> Iterator[Finding | NotChecked]:
    """Findings about connections that another program's rules take, or that are refused for a part."""
    pods = _client_pods(snapshot)
    for node in nodes:
        ways = _ways(node, services, pods)
        seen: set[tuple[str, str]] = set()
        for service, port, client, ip, number in islice(ways, MAX_WAYS):
            finding = _look(node, service, port, client, ip, number, pods)
            if finding is not None and (finding.check, finding.title) not in seen:
                seen.add((finding.check, finding.title))
                yield finding
        if next(ways, None) is not None:
            yield NotChecked(f"ways of packets on {node.title}", f"more than {MAX_WAYS}; name a Service")


def _client_pods(snapshot: ClusterSnapshot) -> dict[int, str]:
    """An address of a pod in a network of its own, by family, that is no endpoint where there is such a one."""
    slices = {canonical_ip(ip) for s in snapshot.endpoint_slices for e in s.endpoints for ip in e.addresses}
    found: dict[int, str] = {}
    for free in (True, False):
        for pod in snapshot.pods:
            for ip in pod.ips if not pod.spec.host_network else ():
                if (canonical_ip(ip) not in slices) is free:
                    found.setdefault(6 if ":" in ip else 4, canonical_ip(ip))
    return found


def _ways(node: NodeRules, services: Sequence[Service], pods: dict[int, str]) -> Iterator[Way]:
    own = node.ruleset.node_ips or ()
    for service in services:
        outside = (*service.spec.external_ips, *(i.ip for i in service.status.load_balancer.ingress if i.ip))
        for port in service.spec.ports:
            places = [(canonical_ip(ip), port.port, False) for ip in service.cluster_ips]
            places += [(canonical_ip(ip), port.port, True) for ip in outside]
            places += [(ip, port.node_port, True) for ip in own if port.node_port]
            for ip, number, external in places:
                family = 6 if ":" in ip else 4
                if family not in node.families:
                    continue
                if not external:
                    yield service, port, "pod", ip, number
                    if any((6 if ":" in a else 4) == family for a in own):
                        yield service, port, "node", ip, number
                else:
                    yield service, port, "outside", ip, number


def packets_to(snapshot: ClusterSnapshot, node: NodeRules, service: Service) -> Iterator[tuple[str, Packet]]:
    """(kind of client, packet) for each address of a Service and each kind of client: "pod", "node", "outside"."""
    pods = _client_pods(snapshot)
    for _, port, client, ip, number in _ways(node, [service], pods):
        yield client, _packet(node, port, client, ip, number, pods)


def _packet(node: NodeRules, port: ServicePort, client: str, ip: str, number: int, pods: dict[int, str]) -> Packet:
    family = 6 if ":" in ip else 4
    own = [a for a in node.ruleset.node_ips or () if (6 if ":" in a else 4) == family]
    src = {"pod": pods.get(family) or OUTSIDE[family], "node": own[0] if own else "", "outside": OUTSIDE[family]}
    return Packet(
        src=src[client],
        dst=ip,
        dport=number,
        protocol=Protocol(port.protocol),
        bridged=False if client != "pod" else None,
    )


def _look(
    node: NodeRules, service: Service, port: ServicePort, client: str, ip: str, number: int, pods: dict[int, str]
) -> Finding | None:
    packet = _packet(node, port, client, ip, number, pods)
    name = service_port_name(service.metadata.namespace, service.metadata.name, port.name)
    evaluation = evaluate(node.ruleset, packet)
    return _taken(node, service, name, client, packet, evaluation) or _partly(
        node, service, name, client, packet, evaluation
    )


def _taken(
    node: NodeRules, service: Service, name: str, client: str, packet: Packet, evaluation: Evaluation
) -> Finding | None:
    """Another program's translation takes the packets before kube-proxy's rules."""
    for part in evaluation.parts:
        rule = part.rule
        if part.verdict is not RulesetVerdict.DNAT or rule is None or is_kube_proxys(rule) or rule.table == "ipvs":
            continue
        where = ", ".join(b.address for b in part.backends)
        at = address_text(packet.dst, packet.dport)
        return SERVICE_TAKEN_BY_OTHERS.finding(
            f"{node.title}: packets to {at} of {name} go to {where} by {rule.table} {rule.chain}"
            f"{_by(rule)}, before kube-proxy's rules",
            (
                Evidence(f"rule {rule.index} of {rule.chain}: {rule.text}", Certainty.OBSERVED, node=node.node),
                Evidence(f"a packet from {packet.src} was followed through the rules", Certainty.DERIVED),
            ),
            service.ref,
            detail="Who translates a connection first decides: kube-proxy's rules are not met by these packets.",
        )
    return None


def _partly(
    node: NodeRules, service: Service, name: str, client: str, packet: Packet, evaluation: Evaluation
) -> Finding | None:
    """A part of the connections is refused: one endpoint of three, or at random."""
    refused = [part for part in evaluation.parts if part.verdict in _REFUSALS and not _is_policy(node, part.rule)]
    if evaluation.verdict is not RulesetVerdict.MIXED or not refused or len(refused) == len(evaluation.parts):
        return None
    shares = [part.share for part in refused]
    known = [share for share in shares if share is not None]
    share = f"{sum(known):.0%}" if len(known) == len(shares) else "a part"
    rules = "; ".join(
        f"{p.verdict.value} by {p.rule.table} {p.rule.chain} {p.rule.index}{_by(p.rule)}" for p in refused if p.rule
    )
    at = address_text(packet.dst, packet.dport)
    who = {"pod": "pods", "node": "the node itself", "outside": "outside"}[client]
    return SERVICE_PARTLY_REFUSED.finding(
        f"{node.title}: {share} of the connections from {who} to {at} of {name} fail: {rules}",
        tuple(
            Evidence(f"rule {p.rule.index} of {p.rule.chain}: {p.rule.text}", Certainty.OBSERVED, node=node.node)
            for p in refused
            if p.rule
        ),
        service.ref,
    )


def _is_policy(node: NodeRules, rule: RuleRef | None) -> bool:
    """Whether a policy's enforcer refuses: which clients it admits is for the policies to say, not for these rules."""
    return rule is not None and policy_behind(rule, node.ruleset) is not None


def _by(rule: RuleRef) -> str:
    author = author_of(rule)
    return f" ({author})" if author else ""
