"""The packet that arrives: where it is another one than the client sent, the flow is judged as it arrives.

A mesh's tunnel changes the port, masquerading the source, a node's DNS cache the destination. Where it is not known which
of several packets arrives, each is judged, and the verdict is UNKNOWN unless all agree.
Sources: Istio, "Ambient and Kubernetes NetworkPolicy"; Kubernetes, "Source IP" and "NodeLocal DNSCache".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, Service
from kubectl_genainet.policy.enforcers import EnforcerName
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.flows import api_server
from kubectl_genainet.policy.flows.api_server import as_a_node, is_to_an_unread_api_server
from kubectl_genainet.policy.flows.link_local import WHY, as_its_nodes, may_be_its_nodes
from kubectl_genainet.policy.flows.node_ports import NodeEntry, ways_through
from kubectl_genainet.policy.flows.overlays import tunnel_addresses
from kubectl_genainet.policy.flows.secondary import why_beside_policies
from kubectl_genainet.policy.flows.service_address import why_it_may_differ
from kubectl_genainet.policy.flows.tunnels import Tunnel, in_ambient, tunnel_of
from kubectl_genainet.policy.flows.waypoints import Waypoint, waypoint_of
from kubectl_genainet.policy.matching.mesh import HBONE
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import (
    Direction,
    DirectionResult,
    Explanation,
    NotEvaluated,
    PolicyEndpoint,
    PolicyFlow,
    PolicyVerdict,
    Reason,
    both,
    ip_endpoint,
    pod_endpoint,
)

_LOCAL_DNS = "169.254.20.10"
_CILIUMS_ENVOY = (
    "192.192.192.192"  # the endpoint of Services that Cilium makes for its Ingresses and Gateways; nobody has it
)
_OF_PROBES = {
    4: "169.254.7.127",
    6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
}  # Istio, "Ambient and Kubernetes NetworkPolicy"
_WHAT = "the packet that arrives"


def explain_arriving(
    engine: PolicyEngine, flow: PolicyFlow, service: str = "", entry: NodeEntry | None = None
) -> Explanation:
    """The verdict of a flow as it arrives. `service` ("namespace/name") is the Service that it is sent to, if any, `entry`
    the port of a node.

    Raises InputError for an endpoint that does not exist.
    """
    snapshot = engine.snapshot
    target = snapshot.service(*service.split("/", 1)) if service else None
    if entry is not None and flow.source.name:
        return _to_an_entry(engine, flow, entry)
    tunnel = tunnel_of(snapshot, flow)
    if tunnel is not None:
        return _in_a_mesh(engine, flow, tunnel, target)
    if service and flow.destination.ip == _CILIUMS_ENVOY:
        return _to_envoy(engine, flow)
    if engine.enforcer.other_family_open and _of_another_family(engine, flow):
        return _past_policies(engine, flow)
    if target is not None and flow.source.name and flow.source.name == flow.destination.name:
        return _hairpin(engine, flow)
    if target is not None and not flow.source.name and _is_masqueraded(engine, flow, target):
        return _through_a_node(engine, flow, target)
    if target is not None and flow.source.name and flow.port == 53 and is_cluster_dns(target):
        cache = node_local_dns(snapshot)
        if cache is not None and not _redirect(snapshot, flow, service):
            return to_node_local_dns(engine, flow, *cache)
    if target is not None and engine.enforcer.service_addresses:
        return _by_service_address(engine, flow, target)
    redirect = _redirect(snapshot, flow, service)
    if redirect:
        return _redirected(engine, flow, redirect)
    if flow.destination.domain and is_to_an_unread_api_server(engine, flow):
        return _combined(flow, [engine.explain(flow), as_a_node(engine, flow)], api_server.WHY)
    if may_be_its_nodes(engine, flow):
        return _combined(flow, [engine.explain(flow), as_its_nodes(engine, flow)], WHY)
    if _through_overlay(engine, flow):
        return _from_a_tunnel(engine, flow)
    if _into_ambient(engine, flow):
        return _as_a_probe(engine, flow)
    explanation = engine.explain(flow)
    why = why_beside_policies(snapshot, flow.destination.ip) if explanation.ingress.reason is Reason.OUTSIDE else ""
    if why and flow.source.name:
        return _beside_policies(explanation, why, further=bool(snapshot.of("MultiNetworkPolicy", "k8s.cni.cncf.io")))
    return (
        msgspec.structs.replace(explanation, arrival=_untranslated(target, flow)) if target is not None else explanation
    )


def _in_a_mesh(engine: PolicyEngine, flow: PolicyFlow, tunnel: Tunnel, target: Service | None) -> Explanation:
    """The packet goes in a mesh's tunnel, to the server's own port for it or to a waypoint."""
    snapshot = engine.snapshot
    server = snapshot.pod(flow.destination.namespace, flow.destination.name)
    waypoint = waypoint_of(snapshot, server, target) if server is not None and tunnel.port == HBONE else None
    if waypoint is not None:
        return _through_waypoint(engine, flow, waypoint)
    inside = engine.explain(msgspec.structs.replace(flow, port=tunnel.port))
    if tunnel.certain:
        return msgspec.structs.replace(inside, arrival=tunnel.note)
    return _combined(flow, [inside, engine.explain(flow)], tunnel.note)


def _redirected(engine: PolicyEngine, flow: PolicyFlow, redirect: str) -> Explanation:
    explanation = engine.explain(flow)
    open_ = (Reason.DEFAULT, Reason.INERT)
    closed = [d for d in Direction if explanation.direction(d).reason not in open_]
    note = f"{redirect} sends it to a pod on the client's own node instead, and which one is not evaluated"
    return _opened(msgspec.structs.replace(explanation, arrival=note), closed, note)


def _beside_policies(explanation: Explanation, why: str, *, further: bool) -> Explanation:
    """A flow that may pass by what enforces policies; `further` policies may be about the other network."""
    isolated = explanation.egress.reason not in (Reason.DEFAULT, Reason.INERT)
    sides = ((Direction.EGRESS,) if isolated else ()) + ((Direction.INGRESS,) if further else ())
    return _opened(msgspec.structs.replace(explanation, arrival=why), sides, why)


def _untranslated(service: Service, flow: PolicyFlow) -> str:
    """That a headless Service leaves the port as it is, where it names another one; "" where it makes no difference."""
    differs = any(p.port == flow.port and p.target_port not in (0, p.port) for p in service.spec.ports)
    if service.spec.cluster_ip != "None" or not differs:
        return ""
    return (
        f"the Service is headless, so nothing translates its port: the connection arrives on port {flow.port} as it is"
    )


def _to_an_entry(engine: PolicyEngine, flow: PolicyFlow, entry: NodeEntry) -> Explanation:
    """A pod's connection to a port of a node, or to a load balancer that takes it to one."""
    who = "that node" if engine.snapshot.node_at(entry.address) is not None else "the load balancer, by way of a node,"
    there = f"{flow.destination} {flow.protocol} {flow.port}"
    note = f"the connection is sent to {entry.address}:{entry.port}; {who} makes {there} of it"
    explanation = _combined(flow, ways_through(engine, flow, entry), note)
    return msgspec.structs.replace(explanation, flow=flow, arriving=explanation.arriving or (explanation.flow,))


def _through_waypoint(engine: PolicyEngine, flow: PolicyFlow, waypoint: Waypoint) -> Explanation:
    """A flow whose client and server each talk with a waypoint. It is known where policies say the same of any peer."""
    note = (
        f"the connection {'takes' if waypoint.certain else 'may take'} the waypoint {waypoint.namespace}/{waypoint.name}, in "
        f"the tunnel (port {HBONE}): the client's policies see it sent to the waypoint, the server's see it come from there"
    )
    proxies = [pod_endpoint(pod.metadata.namespace, pod.metadata.name) for pod in waypoint.pods(engine.snapshot)]
    direct = msgspec.structs.replace(flow, port=HBONE)
    explanation = msgspec.structs.replace(engine.explain(direct), arrival=note)
    ways = [_joined(engine, flow, direct, proxy) for proxy in proxies]
    if ways:
        return _combined(flow, ways if waypoint.certain else [explanation, *ways], note)
    closed = [d for d in Direction if explanation.direction(d).reason not in (Reason.DEFAULT, Reason.INERT)]
    return _opened(explanation, closed, f"{note}; its pods are not among the objects")


def _joined(engine: PolicyEngine, asked: PolicyFlow, direct: PolicyFlow, proxy: PolicyEndpoint) -> Explanation:
    """From the client to the proxy and from there to the server, as one connection: what denies one of them denies it."""
    first = engine.explain(msgspec.structs.replace(direct, destination=proxy))
    second = engine.explain(msgspec.structs.replace(direct, source=proxy))
    egress = min((first.egress, second.egress), key=_openness)
    ingress = min((second.ingress, first.ingress), key=_openness)
    return Explanation(asked, both(egress.verdict, ingress.verdict), egress, ingress)


def _openness(result: DirectionResult) -> int:
    return (PolicyVerdict.DENY, PolicyVerdict.UNKNOWN, PolicyVerdict.ALLOW).index(result.verdict)


def _redirect(snapshot: ClusterSnapshot, flow: PolicyFlow, service: str) -> str:
    """The CiliumLocalRedirectPolicy that takes the flow, or an empty string."""
    for obj in snapshot.of("CiliumLocalRedirectPolicy", "cilium.io"):
        spec = obj.raw.get("spec")
        front = spec.get("redirectFrontend") if isinstance(spec, dict) else None
        if not isinstance(front, dict):
            continue
        by_name, by_address = front.get("serviceMatcher"), front.get("addressMatcher")
        if isinstance(by_name, dict) and f"{by_name.get('namespace')}/{by_name.get('serviceName')}" == service:
            return str(obj.ref)
        if isinstance(by_address, dict) and flow.destination.ip and by_address.get("ip") == flow.destination.ip:
            return str(obj.ref)
    return ""


def _through_overlay(engine: PolicyEngine, flow: PolicyFlow) -> bool:
    """Whether a node sends to a pod of another one. Cilium knows nodes by their identity, whatever the address."""
    node, pod = engine.ends(flow)
    apart = node.kind is PartyKind.HOST and pod.kind is PartyKind.POD and node.runs(pod) is False
    return apart and engine.enforcer.name is not EnforcerName.CILIUM


def _from_a_tunnel(engine: PolicyEngine, flow: PolicyFlow) -> Explanation:
    """The verdict on what a node sends, from its own address or from its end of the overlay's tunnel."""
    plain = engine.explain(flow)
    sender, receiver = engine.ends(flow)
    version = receiver.address.version if receiver.address is not None else 4
    addresses = [
        address
        for node in engine.snapshot.nodes
        if node.metadata.name == sender.node
        for address in tunnel_addresses(node)
        if (":" in address) == (version == 6)
    ]
    if not addresses:
        return plain
    ways = [engine.explain(msgspec.structs.replace(flow, source=ip_endpoint(address))) for address in addresses]
    note = (
        f"node {sender.node} has ends of tunnels ({', '.join(addresses)}): in an overlay, what it sends to pods of other "
        "nodes comes from there and not from its own address"
    )
    return _combined(flow, [plain, *ways], note)


def _to_envoy(engine: PolicyEngine, flow: PolicyFlow) -> Explanation:
    """A connection that Envoy on a node takes, and goes on with to backends that its routes name."""
    note = (
        "the Service is Cilium's own, for an Ingress or a Gateway: Envoy on a node takes the connection, and goes on to the "
        "backends of its routes as the entity ingress; which these are is not evaluated"
    )
    explanation = msgspec.structs.replace(engine.explain(flow), arrival=note)
    closed = explanation.egress.reason not in (Reason.DEFAULT, Reason.INERT, Reason.OUTSIDE, Reason.HOST_NETWORK)
    return _opened(explanation, (*((Direction.EGRESS,) if closed else ()), Direction.INGRESS), note)


def _into_ambient(engine: PolicyEngine, flow: PolicyFlow) -> bool:
    """Whether a node sends to a pod of its own that is in the ambient mesh."""
    node, party = engine.ends(flow)
    pod = engine.snapshot.pod(party.namespace, party.name) if party.kind is PartyKind.POD else None
    own = node.kind is PartyKind.HOST and node.runs(party) is not False
    return own and flow.protocol == "TCP" and pod is not None and in_ambient(engine.snapshot, pod)


def _as_a_probe(engine: PolicyEngine, flow: PolicyFlow) -> Explanation:
    """The verdict on what a node sends, by its own address and by the one that Istio puts in its place."""
    address = engine.ends(flow)[1].address
    probes = _OF_PROBES[address.version if address is not None else 4]
    note = (
        f"the pod is in the ambient mesh: what its node sends it (the kubelet's probes) comes from {probes}, and whether "
        "policies see the node in that depends on the enforcer"
    )
    as_probe = engine.explain(msgspec.structs.replace(flow, source=ip_endpoint(probes)))
    return _combined(flow, [engine.explain(flow), as_probe], note)


def _of_another_family(engine: PolicyEngine, flow: PolicyFlow) -> bool:
    """Whether a pod sends to an address outside of a version that no address of its own has."""
    own, peer = engine.ends(flow)
    address = peer.address
    outside = own.kind is PartyKind.POD and peer.kind is PartyKind.OUTSIDE and address is not None
    return outside and address is not None and bool(own.versions) and address.version not in own.versions


def _past_policies(engine: PolicyEngine, flow: PolicyFlow) -> Explanation:
    explanation = engine.explain(flow)
    if explanation.egress.reason in (Reason.DEFAULT, Reason.INERT):
        return explanation
    return _opened(explanation, (Direction.EGRESS,), engine.enforcer.other_family_open)


def _by_service_address(engine: PolicyEngine, flow: PolicyFlow, service: Service) -> Explanation:
    """A flow whose egress is judged before address translation."""
    explanation = engine.explain(flow)
    why = why_it_may_differ(engine, flow, service)
    return _opened(msgspec.structs.replace(explanation, arrival=why), (Direction.EGRESS,), why) if why else explanation


def _hairpin(engine: PolicyEngine, flow: PolicyFlow) -> Explanation:
    note = (
        "the Service sends the pod's connection back to the pod itself, masqueraded (hairpin): whether policies see the "
        "node's address or the pod's depends on the enforcer"
    )
    return _combined(flow, [engine.explain(flow, hairpin=True), engine.explain(flow)], note)


def _is_masqueraded(engine: PolicyEngine, flow: PolicyFlow, service: Service) -> bool:
    """Whether a client outside the cluster comes through a node that hides its address, or may hide it."""
    if engine.ends(flow)[0].kind is not PartyKind.OUTSIDE or engine.enforcer.keeps_clients:
        return False
    if is_published(service):
        return service.spec.external_traffic_policy != "Local"
    return service.spec.cluster_ip not in ("", "None")


def is_published(service: Service) -> bool:
    """Whether clients outside the cluster reach a Service."""
    return service.spec.type in ("NodePort", "LoadBalancer") or bool(service.external_addresses)


def _through_a_node(engine: PolicyEngine, flow: PolicyFlow, service: Service) -> Explanation:
    published = is_published(service)
    note = (
        "externalTrafficPolicy is Cluster: the node that takes the packet in masquerades it, so policies see a node's "
        f"address and not {flow.source} (externalTrafficPolicy: Local keeps it)"
        if published
        else "a client outside the cluster is sent to the ClusterIP by way of a node: where its proxy knows the addresses of "
        f"pods, it masquerades the packet, and policies see a node's address and not {flow.source}"
    )
    as_sent = engine.explain(flow)
    by_address = engine.enforcer.name is not EnforcerName.CILIUM
    nodes = [
        ip for node in engine.snapshot.nodes for ip in (*node.ips[:1], *(tunnel_addresses(node) if by_address else ()))
    ]
    version = 6 if ":" in flow.source.ip else 4
    sources = [ip for ip in nodes if (":" in ip) == (version == 6)]
    arriving = [engine.explain(msgspec.structs.replace(flow, source=ip_endpoint(ip))) for ip in sources]
    if arriving and (engine.enforcer.name is EnforcerName.CILIUM or not published):
        arriving.append(as_sent)  # Cilium may keep the client's identity, or its address (DSR)
    if arriving:
        return _combined(flow, arriving, note)
    if as_sent.ingress.reason in (Reason.DEFAULT, Reason.HOST_NETWORK, Reason.OUTSIDE, Reason.INERT):
        return msgspec.structs.replace(as_sent, arrival=note)
    why = f"{note}; the nodes are not among the objects"
    return _opened(msgspec.structs.replace(as_sent, arrival=note), (Direction.INGRESS,), why)


def is_cluster_dns(service: Service) -> bool:
    """Whether a Service is the cluster's DNS, by the label that all distributions set, or by its well-known name."""
    meta = service.metadata
    return meta.labels.get("k8s-app") == "kube-dns" or (meta.namespace, meta.name) in (
        ("kube-system", "kube-dns"),
        ("kube-system", "coredns"),
        ("openshift-dns", "dns-default"),
    )


def node_local_dns(snapshot: ClusterSnapshot) -> tuple[str, str] | None:
    """The DNS cache that runs on every node: its address there, and the object that shows it. None: there is none."""
    for obj in snapshot.of("DaemonSet", "apps"):
        for container in _containers(obj):
            if "k8s-dns-node-cache" in str(container.get("image", "")):
                text = " ".join(str(a) for a in [*(container.get("args") or ()), *(container.get("command") or ())])
                match = re.search(r"-localip[ =]([0-9a-fA-F.:]+)", text)
                return (match.group(1) if match else _LOCAL_DNS), str(obj.ref)
    return None


def _containers(obj: KubeObject) -> list[dict[str, Any]]:
    value: Any = obj.raw
    for step in ("spec", "template", "spec", "containers"):
        value = value.get(step) if isinstance(value, dict) else None
    return [c for c in value or () if isinstance(c, dict)]


def to_node_local_dns(engine: PolicyEngine, flow: PolicyFlow, address: str, evidence: str) -> Explanation:
    """A query that the DNS cache of the pod's own node answers, on an address of that node alone."""
    to_cache = engine.explain(msgspec.structs.replace(flow, destination=ip_endpoint(address)))
    answers = f"the node's own DNS cache answers ({evidence}, {address}): the query does not reach the pods behind the Service"
    if engine.enforcer.name is EnforcerName.CALICO:  # its policies apply to what a pod sends to its own node too
        return msgspec.structs.replace(to_cache, arrival=answers)
    if engine.enforcer.name is EnforcerName.CILIUM:
        return _combined(flow, [to_cache, as_its_nodes(engine, to_cache.flow)], f"{answers}; {WHY}")
    own_node = DirectionResult(PolicyVerdict.ALLOW, Reason.OWN_NODE)
    exempt = msgspec.structs.replace(to_cache, verdict=PolicyVerdict.ALLOW, egress=own_node)
    note = f"{answers}, and whether the pod's own node is exempt from its policies depends on the enforcer"
    return _combined(flow, [to_cache, exempt], note)


def _combined(asked: PolicyFlow, explained: Sequence[Explanation], note: str) -> Explanation:
    """The answer for one of several packets: that of all, or UNKNOWN for the flow that was asked for."""
    flows = tuple(dict.fromkeys(e.flow for e in explained))
    first = msgspec.structs.replace(explained[0], arrival=note, arriving=flows if len(flows) > 1 else ())
    if all(e.verdict is first.verdict for e in explained):
        return first
    differing = [d for d in Direction if len({e.direction(d).verdict for e in explained}) > 1]
    return _opened(msgspec.structs.replace(first, flow=asked), differing, note)


def _opened(explanation: Explanation, directions: Sequence[Direction], why: str) -> Explanation:
    """The explanation with the verdict of these directions left open."""
    changed = {}
    for direction in directions:
        result = explanation.direction(direction)
        notes = (*result.not_evaluated, NotEvaluated(_WHAT, "", why))
        changed[direction.value] = msgspec.structs.replace(
            result, verdict=PolicyVerdict.UNKNOWN, reason=Reason.NOT_EVALUATED, admitted_by=(), not_evaluated=notes
        )
    changed_explanation = msgspec.structs.replace(explanation, **changed)
    return msgspec.structs.replace(
        changed_explanation, verdict=both(changed_explanation.egress.verdict, changed_explanation.ingress.verdict)
    )
