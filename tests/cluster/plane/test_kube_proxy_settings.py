"""Settings of kube-proxy and traffic policies of Services, with every release in both modes.

All nodes belong to one API server. Each has its own zone, endpoints of its own, and a kube-proxy of its own release and
configuration. What each must do is written here by hand; `rules`, evaluations, drift and the translation that `trace` names
are compared with that and with what real packets do.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import pytest

from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, without_nulls
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.proxy import Ruleset, attribute_nat, evaluate, parse_ruleset
from kubectl_genainet.proxy.report import rules_report
from tests.cluster.harness.binaries import RELEASES, Binaries
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.kubeproxy import KubeProxy
from tests.cluster.harness.processes import wait_for
from tests.proxy_services import disagreement, packet_of, sent
from tests.proxy_traffic import CALLER, Traffic

pytestmark = pytest.mark.cluster

NAMESPACE = "proxy-settings"
EXTRA_IP = "10.112.0.10"  # of a second range of cluster IPs, by a ServiceCIDR object
ZONE_A, ZONE_B = 101, 102  # endpoints of nodes of these zones that run no kube-proxy here
BEYOND = {"elsewhere-a": ZONE_A, "elsewhere-b": ZONE_B}

IPTABLES: tuple[dict[str, Any], ...] = (
    {"nodePortAddresses": ["172.31.0.0/24"], "iptables": {"masqueradeAll": True}},
    {"iptables": {"localhostNodePorts": False}},
    {"nodePortAddresses": ["primary"]},
    {},
)
NFTABLES: tuple[dict[str, Any], ...] = (
    {"nodePortAddresses": ["172.31.0.0/24"], "nftables": {"masqueradeAll": True}},
    {"nodePortAddresses": ["primary"]},
    {"nodePortAddresses": ["0.0.0.0/0"]},
    {"featureGates": {"KubeProxyNFTablesLocalhostNodePorts": True}},
)


@dataclass(frozen=True)
class Setup:
    """A node: its kube-proxy, its zone, and the last byte of its own endpoint's address."""

    mode: str
    release: str
    config: dict[str, Any] = field(hash=False)
    zone: str
    own: int

    @property
    def name(self) -> str:
        return f"{self.mode}-{self.release}"


SETUPS = [
    Setup(mode, release, {"mode": mode, **config}, ("a", "b", "")[number % 3], 10 + number)
    for number, (mode, release, config) in enumerate(
        (mode, release, config)
        for mode, configs in (("iptables", IPTABLES), ("nftables", NFTABLES))
        for release, config in zip(RELEASES, configs, strict=True)
    )
]
OWN = {setup.own for setup in SETUPS}

Endpoint = dict[str, Any]
READY, TERMINATING = {"ready": True}, {"ready": False, "serving": True, "terminating": True}
ENDED = {"ready": False, "serving": False, "terminating": True}


def endpoint(suffix: int, node: str, conditions: dict[str, bool], hints: dict[str, Any] | None = None) -> Endpoint:
    hinted = {"hints": hints} if hints else {}
    return {"addresses": [f"10.244.1.{suffix}"], "conditions": conditions, "nodeName": node, **hinted}


def elsewhere(
    conditions: dict[str, bool], *, zones: bool = False, nodes: bool = False, only: str = ""
) -> list[Endpoint]:
    """Endpoints of other nodes, hinted for the zones and nodes that they are in."""
    return [
        endpoint(suffix, node, conditions, hints(node[-1] if zones else "", node if nodes else ""))
        for node, suffix in BEYOND.items()
        if only in node
    ]


def hints(zone: str, node: str) -> dict[str, Any]:
    for_zones = {"forZones": [{"name": zone}]} if zone else {}
    return {**for_zones, "forNodes": [{"name": node}]} if node else for_zones


def on_each(conditions: dict[str, bool], *, zone: str = "", nodes: bool = False) -> list[Endpoint]:
    """An endpoint on every node under test."""
    return [endpoint(s.own, s.name, conditions, hints(zone, s.name if nodes else "")) for s in SETUPS]


def by_zone(setup: Setup) -> set[int]:
    return {"a": {ZONE_A}, "b": {ZONE_B}}.get(setup.zone, {ZONE_A, ZONE_B})


@dataclass(frozen=True)
class Expectation:
    """A Service, its endpoints, and which of them each node's cluster IP and node port lead to."""

    name: str
    spec: dict[str, Any]
    endpoints: list[Endpoint]
    inside: Any  # (Setup) -> set of suffixes
    outside: Any = None  # the node port's, where it differs


NODE_PORT_LOCAL = {"type": "NodePort", "externalTrafficPolicy": "Local"}
SAME_ZONE = {"trafficDistribution": "PreferSameZone"}
SAME_NODE = {"trafficDistribution": "PreferSameNode"}
INTERNAL_LOCAL = {"internalTrafficPolicy": "Local"}
EXPECTATIONS = [
    Expectation("internal-local", INTERNAL_LOCAL, on_each(READY) + elsewhere(READY), lambda s: {s.own}),
    Expectation("internal-local-none", INTERNAL_LOCAL, elsewhere(READY), lambda s: set()),
    Expectation(
        "internal-local-node-port",
        {**INTERNAL_LOCAL, "type": "NodePort"},
        on_each(READY) + elsewhere(READY),
        lambda s: {s.own},
        lambda s: OWN | {ZONE_A, ZONE_B},
    ),
    Expectation(
        "internal-local-terminating", INTERNAL_LOCAL, on_each(TERMINATING) + elsewhere(READY), lambda s: {s.own}
    ),
    Expectation("terminating", {}, on_each(TERMINATING) + elsewhere(ENDED), lambda s: OWN),
    Expectation("partly-terminating", {}, on_each(TERMINATING) + elsewhere(READY, only="a"), lambda s: {ZONE_A}),
    Expectation(
        "external-local-terminating",
        NODE_PORT_LOCAL,
        on_each(TERMINATING) + elsewhere(READY),
        lambda s: {ZONE_A, ZONE_B},
        lambda s: {s.own},
    ),
    Expectation("same-zone", SAME_ZONE, elsewhere(READY, zones=True), by_zone),
    Expectation("prefer-close", {"trafficDistribution": "PreferClose"}, elsewhere(READY, zones=True), by_zone),
    Expectation("topology-aware", {}, elsewhere(READY, zones=True), by_zone),
    Expectation("same-zone-node-port", {**SAME_ZONE, "type": "NodePort"}, elsewhere(READY, zones=True), by_zone),
    Expectation(
        "same-zone-external-local",
        {**SAME_ZONE, **NODE_PORT_LOCAL},
        on_each(READY, zone="c") + elsewhere(READY, zones=True),
        lambda s: by_zone(s) if s.zone else OWN | {ZONE_A, ZONE_B},
        lambda s: {s.own},
    ),
    Expectation("same-zone-terminating", SAME_ZONE, elsewhere(TERMINATING, zones=True), lambda s: {ZONE_A, ZONE_B}),
    Expectation(
        "hints-missing",
        SAME_ZONE,
        elsewhere(READY, zones=True, only="a") + elsewhere(READY, only="b"),
        lambda s: {ZONE_A, ZONE_B},
    ),
    Expectation(
        "same-node",
        SAME_NODE,
        on_each(READY, zone="a", nodes=True) + elsewhere(READY, zones=True, nodes=True),
        lambda s: {s.own},
    ),
    Expectation("same-node-none", SAME_NODE, elsewhere(READY, zones=True, nodes=True), by_zone),
    Expectation(
        "second-range", {"clusterIP": EXTRA_IP, "type": "NodePort"}, elsewhere(READY), lambda s: {ZONE_A, ZONE_B}
    ),
]
SERVED = [(f"10.244.1.{suffix}", 8080, "TCP") for suffix in (*OWN, ZONE_A, ZONE_B)]


def install(plane: ControlPlane) -> None:
    api = plane.api()
    metadata = {"name": "second-range"}
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": metadata}
    api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    api.apply([{**cidr, "spec": {"cidrs": [f"{EXTRA_IP.rpartition('.')[0]}.0/24"]}}])
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    # What its controller does, which does not run here.
    api.patch("/apis/networking.k8s.io/v1/servicecidrs/second-range/status", {"status": {"conditions": [ready]}})
    for expected in EXPECTATIONS:
        port = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
        annotations = {"service.kubernetes.io/topology-mode": "Auto"} if expected.name == "topology-aware" else {}
        metadata = {"name": expected.name, "namespace": NAMESPACE}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {**metadata, "annotations": annotations}}
        labels = {"kubernetes.io/service-name": expected.name}
        slices = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv4",
            "endpoints": expected.endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }
        api.apply([{**service, "spec": {"ports": [port], **expected.spec}}, slices])


@dataclass
class Node:
    setup: Setup
    proxy: KubeProxy
    traffic: Traffic

    def dumps(self) -> list[RulesetDump]:
        return list(read_rulesets(self.setup.name, str(self.proxy.netns.path)))

    def ruleset(self) -> Ruleset:
        return parse_ruleset(self.dumps(), node_ips=self.traffic.node_ips())


@dataclass
class World:
    nodes: list[Node]
    snapshot: ClusterSnapshot
    services: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def world(kubernetes_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ControlPlane(kubernetes_binaries, tmp_path_factory.mktemp("settings"), "ps") as plane:
        install(plane)
        proxies = [KubeProxy(plane, s.name, s.config, s.release, zone=s.zone, wait=False) for s in SETUPS]
        nodes: list[Node] = []
        same_zone = repeat(services(plane)["same-zone"]["spec"]["clusterIP"])
        try:
            with ThreadPoolExecutor(len(SETUPS)) as pool:
                nodes += pool.map(ready_node, SETUPS, proxies, same_zone)
            yield World(nodes, snapshot(plane), services(plane))
        finally:
            for node in nodes:
                node.traffic.stop()
            for proxy in proxies:
                proxy.stop()


def ready_node(setup: Setup, proxy: KubeProxy, same_zone: str) -> Node:
    proxy.wait_for_rules("second-range" if setup.mode == "nftables" else "second-range:http", timeout=180)
    node = Node(setup, proxy, Traffic(proxy.netns.name, SERVED))
    packet = packet_of({"from": "client", "src": CALLER, "dst": same_zone, "dport": 80, "protocol": "TCP"})

    def knows_its_zone() -> bool:
        """A kube-proxy may write its rules before it knows the labels of its node, and again once it does."""
        backends = evaluate(node.ruleset(), packet).backends
        return {int(b.ip.rpartition(".")[2]) for b in backends} == by_zone(setup)

    wait_for(f"rules for the zone of {setup.name}", knows_its_zone, interval=1)
    return node


def services(plane: ControlPlane) -> dict[str, dict[str, Any]]:
    items = plane.api().get(f"/api/v1/namespaces/{NAMESPACE}/services")["items"]
    return {item["metadata"]["name"]: item for item in items}


def snapshot(plane: ControlPlane) -> ClusterSnapshot:
    objects = []
    for path, version, kind in (
        ("/api/v1/services", "v1", "Service"),
        ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
        ("/api/v1/nodes", "v1", "Node"),
    ):
        for item in plane.api().get(path)["items"]:
            objects.append(KubeObject(without_nulls({**item, "apiVersion": version, "kind": kind})))
    return ClusterSnapshot(tuple(objects))


def flows(node: Node, services: dict[str, dict[str, Any]]) -> Iterator[tuple[Expectation, bool, dict[str, Any]]]:
    """(expectation, whether it is to the node port, flow) for each kind of client."""
    own = node.proxy.ip
    for expected in EXPECTATIONS:
        spec = services[expected.name]["spec"]
        port = spec["ports"][0].get("nodePort", 0)
        inside = [("client", CALLER), ("client", "192.0.2.10"), ("node", own)]
        targets = [(spec["clusterIP"], 80, origin, src) for origin, src in inside]
        if port:
            targets += [(ip, port, "client", "192.0.2.10") for ip in (own, "192.0.2.1")]
            targets.append(("127.0.0.1", port, "node", "127.0.0.1"))
        for dst, dport, origin, src in targets:
            flow = {"from": origin, "src": src, "dst": dst, "dport": dport, "protocol": "TCP", "of": expected.name}
            yield expected, dst != spec["clusterIP"], flow
    unallocated = Expectation("unallocated", {}, [], lambda s: set())
    taken = {service["spec"]["clusterIP"] for service in services.values()}  # the API server gives any, of both ranges
    for net in (EXTRA_IP.rpartition(".")[0], "10.96.77"):
        dst = next(ip for ip in (f"{net}.{number}" for number in range(77, 254)) if ip not in taken)
        flow = {"from": "client", "src": CALLER, "dst": dst, "dport": 80, "protocol": "TCP", "of": unallocated.name}
        yield unallocated, False, flow


def test_every_packet_goes_where_the_rules_are_said_to_lead(world: World) -> None:
    with ThreadPoolExecutor(len(world.nodes)) as pool:
        wrong = [
            line for lines in pool.map(lambda node: list(disagreements(world, node)), world.nodes) for line in lines
        ]
    assert wrong == [], "\n".join(wrong)


def disagreements(world: World, node: Node) -> Iterator[str]:
    ruleset = node.ruleset()
    chosen = list(flows(node, world.services))
    evaluations = [evaluate(ruleset, packet_of(flow)) for _, _, flow in chosen]
    came = sent(node.traffic, [flow for _, _, flow in chosen], evaluations)
    for (expected, external, flow), said, result in zip(chosen, evaluations, came, strict=True):
        problem = disagreement(flow, said, result)
        backends = {int(b.ip.rpartition(".")[2]) for b in said.backends}
        # The policy Local of outside is not for the node's own connections.
        external = external and not (flow["from"] == "node" and expected.spec.get("externalTrafficPolicy") == "Local")
        wanted = (expected.outside or expected.inside)(node.setup) if external else expected.inside(node.setup)
        if not problem and backends and backends != wanted:
            problem = f"backends {sorted(backends)}, not {sorted(wanted)}"
        if problem:
            yield f"{node.setup.name} {node.setup.config}: {flow}: {result}: {problem}"
        elif result["end"] == "answer":
            yield from wrong_translation(ruleset, flow, result)


def wrong_translation(ruleset: Ruleset, flow: dict[str, Any], result: dict[str, Any]) -> Iterator[str]:
    ip, port = result["backend"].split(":")
    before = FiveTuple(flow["src"], 40000, flow["dst"], flow["dport"], Protocol.TCP)
    nat = attribute_nat(ruleset, before, FiveTuple(flow["src"], 40000, ip, int(port), Protocol.TCP))
    if nat is None or nat.service != f"{NAMESPACE}/{flow['of']}:http":
        yield f"{flow}: translation to {ip} is that of {nat}"


def test_rules_finds_every_node_in_step(world: World) -> None:
    dumps = {node.setup.name: node.dumps() for node in world.nodes}
    node_ips = {node.setup.name: node.traffic.node_ips() for node in world.nodes}
    report = rules_report(world.snapshot, dumps, node_ips=node_ips)
    assert [f"{f.check}: {f.title}" for f in report.findings] == []
    assert report.not_checked == ()
    wrong = []
    for row in report.rows:
        expected = next((c for c in EXPECTATIONS if f"{NAMESPACE}/{c.name}:http" == row.service), None)
        setup = next(s for s in SETUPS if s.name == row.node)
        if expected is None:
            continue
        wanted = expected.inside(setup) if row.address.ip else (expected.outside or expected.inside)(setup)
        backends = {int(b.ip.rpartition(".")[2]) for b in row.address.backends}
        if (backends, row.expected, row.state) != (wanted, len(wanted), "in step"):
            wrong.append(
                f"{row.node} {expected.name} {row.address.address}: {sorted(backends)} of {row.expected}, {row.state}"
            )
    assert wrong == [], "\n".join(wrong)
