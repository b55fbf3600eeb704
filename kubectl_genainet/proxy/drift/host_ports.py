"""Who gets the packets to a port of the node that a pod asks for: the pod's hostPort, or a program on the node's network.

A hostPort is a translation like a Service's: of all that take one address and port, the first that a packet meets wins,
and nothing tells the others. Which is first depends on who wrote its rules last (portmap and kube-proxy both put theirs
at the chain's begin), so it may differ from node to node.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.diagnoses.kube_proxy import HOST_PORT_TAKEN, HOST_PORT_WITHOUT_RULES
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, NotChecked, ObjectRef, Severity
from kubectl_genainet.model.kube import ContainerPort, Pod, Service
from kubectl_genainet.model.packet import Protocol, address_text
from kubectl_genainet.proxy.authors import is_kube_proxys
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.drift.ways import OUTSIDE, evidence_of, holder, translations, written_by
from kubectl_genainet.proxy.evaluator.evaluate import evaluate
from kubectl_genainet.proxy.evaluator.model import BackendChoice, Evaluation, Packet, RulesetVerdict
from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef

MAX_PORTS = 1000  # of all pods on one node that are looked at
_UNTRANSLATED = (RulesetVerdict.NO_MATCH, RulesetVerdict.ACCEPT)
_OF_CILIUM = re.compile(r"(?:OLD_)?CILIUM_")
_SERVICE_BALANCER = "svccontroller.k3s.cattle.io/svcname"  # k3s: the pod's hostPort is the Service's own way in


def host_port_findings(
    snapshot: ClusterSnapshot, nodes: Sequence[NodeRules], *, services: Sequence[Service] | None = None
) -> Iterator[Finding | NotChecked]:
    """Ports of the nodes that pods ask for and others get. With `services`, only those that one of them gets."""
    if any(left_out.kind == "Pod" for left_out in snapshot.left_out):
        return
    wanted = None if services is None else {service.ref for service in services}
    for node in nodes:
        ports = [(pod, port) for pod in _pods_on(snapshot, node) for port in _ports(pod)]
        for pod, port in ports[:MAX_PORTS]:
            yield from _port(snapshot, node, pod, port, wanted)
        if len(ports) > MAX_PORTS:
            yield NotChecked(f"host ports on {node.title}", f"more than {MAX_PORTS}")


def _pods_on(snapshot: ClusterSnapshot, node: NodeRules) -> Iterator[Pod]:
    name = node.node or (snapshot.nodes[0].metadata.name if len(snapshot.nodes) == 1 else "")
    for pod in snapshot.pods:
        if name and pod.spec.node_name == name and not pod.finished and pod.ips:
            yield pod


def _ports(pod: Pod) -> Iterator[ContainerPort]:
    """The ports that a pod has on its node; what a pod of the host's network listens on is the node's anyway."""
    for port in pod.ports:
        if port.host_port or pod.spec.host_network:
            yield port


def _port(
    snapshot: ClusterSnapshot, node: NodeRules, pod: Pod, port: ContainerPort, wanted: set[ObjectRef] | None
) -> Iterator[Finding | NotChecked]:
    taken: dict[str, tuple[list[str], RuleRef, Packet, Severity | None]] = {}
    without_rules: list[str] = []
    for address in _addresses(node, pod, port):
        packet = Packet(
            src=OUTSIDE[6 if ":" in address else 4],
            dst=address,
            dport=port.host_port or port.container_port,
            protocol=Protocol(port.protocol),
            bridged=False,
        )
        destination = address_text(address, packet.dport)
        evaluation = evaluate(node.ruleset, packet)
        if evaluation.verdict is RulesetVerdict.UNKNOWN:
            if wanted is None:
                yield NotChecked(f"host port {destination} of {pod.ref} on {node.title}", "; ".join(evaluation.unknown))
            continue
        owner = _other_owner(snapshot, pod, port, packet, evaluation, wanted)
        if owner is not None:
            taken.setdefault(owner[0], ([], owner[1], packet, owner[2]))[0].append(destination)
        elif evaluation.verdict in _UNTRANSLATED and not translations(evaluation) and not pod.spec.host_network:
            without_rules.append(destination)
    for where, (addresses, rule, packet, severity) in taken.items():
        yield HOST_PORT_TAKEN.finding(
            f"{node.title}: packets to {', '.join(addresses)}, a host port of {pod.ref}, go to {where}",
            evidence_of(node, rule, packet),
            pod.ref,
            severity=severity,
            detail="Who translates a connection first decides: the pod does not get these packets.",
        )
    if without_rules and wanted is None and _by_rules(snapshot, node):
        yield HOST_PORT_WITHOUT_RULES.finding(
            f"{node.title}: no rule sends packets to {', '.join(without_rules)} to {pod.ref}, whose host port it is",
            (
                Evidence(
                    "packets from outside were followed through the rules: none translates them", Certainty.DERIVED
                ),
            ),
            pod.ref,
        )


def _addresses(node: NodeRules, pod: Pod, port: ContainerPort) -> Iterator[str]:
    """The node's addresses at which the port is the pod's, of the families that the pod and the rules have."""
    asked = ipaddress.ip_address(port.host_ip) if port.host_ip else None
    own = node.ruleset.node_ips or ()
    chosen = own if asked is None or asked.is_unspecified else (canonical_ip(port.host_ip),)
    families = {6 if ":" in ip else 4 for ip in pod.ips} & node.families
    for address in chosen:
        if (6 if ":" in address else 4) in families and not ipaddress.ip_address(address).is_loopback:
            yield address


def _other_owner(
    snapshot: ClusterSnapshot,
    pod: Pod,
    port: ContainerPort,
    packet: Packet,
    evaluation: Evaluation,
    wanted: set[ObjectRef] | None,
) -> tuple[str, RuleRef, Severity | None] | None:
    """Where packets go that don't reach the pod, the rule that sends them, and how bad that is; None where all reach it."""
    for rule, backends in translations(evaluation).items():
        lost = [backend for backend in backends if not _reaches(pod, port, backend, packet)]
        if not lost:
            continue
        if not is_kube_proxys(rule) and rule.table != "ipvs":
            if wanted is None:
                where = ", ".join(f"{b.address}{holder(snapshot, b.ip)}" for b in lost)
                return f"{where} by {rule.table} {rule.chain}{written_by(rule)}", rule, None
            continue
        served = snapshot.service_at(packet.dst, packet.dport or 0, port.protocol)
        if wanted is not None and (served is None or served.service.ref not in wanted):
            continue
        if served is None:
            name = evaluation.service or ", ".join(b.address for b in lost)
            return f"{name}, which kube-proxy's rules still have at this port", rule, None
        service = served.service
        is_its_way_in = pod.metadata.labels.get(_SERVICE_BALANCER) == service.metadata.name or len(lost) < len(backends)
        via = {"nodePort": "node port", "loadBalancer": "load balancer address"}.get(served.via, "external address")
        where = f"{service.ref}, whose {via} it is"
        return where, rule, Severity.INFO if is_its_way_in else None
    return None


def _reaches(pod: Pod, port: ContainerPort, backend: BackendChoice, packet: Packet) -> bool:
    own = {canonical_ip(ip) for ip in pod.ips} | ({packet.dst} if pod.spec.host_network else set())
    return backend.ip in own and backend.port in (None, port.container_port)


def _by_rules(snapshot: ClusterSnapshot, node: NodeRules) -> bool:
    """Whether a host port without a rule is one that does not work: Cilium serves them without rules."""
    chains = [(chain, name) for table in node.ruleset.tables for name, chain in table.chains.items()]
    if any(pod.metadata.labels.get("k8s-app") == "cilium" for pod in snapshot.pods):
        return False
    has_nat = any(chain.kind == "nat" and chain.hook is Hook.PRE_ROUTING for chain, _ in chains)
    return has_nat and not any(_OF_CILIUM.match(name) for _, name in chains)
