"""Drift along the packet's way: hints, addresses from outside, rules of others that take or refuse a Service's packets."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Finding, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.proxy import Ruleset, compare, dumps_of, parse_ruleset
from kubectl_genainet.proxy.drift.connections import stale_connections
from kubectl_genainet.proxy.hits import parse_conntrack
from kubectl_genainet.proxy.names import iptables_endpoint_chain, iptables_service_chain

NAME = "ai/llm:api"
VIP = "10.80.0.5"
NODES = {"n1": "192.0.2.11", "n2": "192.0.2.12"}
ZONES = {"n1": "a", "n2": "b"}


def _object(kind: str, name: str, version: str = "v1", labels: dict[str, str] | None = None, **raw: Any) -> KubeObject:
    metadata = {"name": name, "namespace": "ai", "labels": labels or {}}
    return KubeObject({"apiVersion": version, "kind": kind, "metadata": metadata, **raw})


def _service(**spec: Any) -> KubeObject:
    port = {"name": "api", "port": 80, "protocol": "TCP", "targetPort": 9000, "nodePort": spec.pop("node_port", 0)}
    return _object("Service", "llm", spec={"clusterIP": VIP, "clusterIPs": [VIP], "ports": [port], **spec})


def _slice(*endpoints: dict[str, Any], name: str = "llm-1") -> KubeObject:
    labels = {"kubernetes.io/service-name": "llm"}
    ports = [{"name": "api", "port": 9000, "protocol": "TCP"}]
    return _object(
        "EndpointSlice", name, "discovery.k8s.io/v1", labels, addressType="IPv4", endpoints=list(endpoints), ports=ports
    )


def _endpoint(ip: str, zone: str = "", **conditions: bool) -> dict[str, Any]:
    hints = {"hints": {"forZones": [{"name": zone}]}} if zone else {}
    return {"addresses": [ip], "conditions": {"ready": True, **conditions}, **hints}


def _nodes() -> list[KubeObject]:
    return [
        _object(
            "Node",
            name,
            labels={"topology.kubernetes.io/zone": ZONES[name]},
            status={"addresses": [{"type": "InternalIP", "address": ip}]},
        )
        for name, ip in NODES.items()
    ]


def _rules(
    *backends: str, node: str = "n1", more: str = "", first: str = "", filters: str = "", before: str = ""
) -> Ruleset:
    chain = iptables_service_chain(NAME, "tcp")
    lines = [
        f'-A KUBE-SERVICES -d {VIP}/32 -p tcp -m comment --comment "{NAME} cluster IP" --dport 80 -j {chain}',
        more,
    ]
    for number, ip in enumerate(backends):
        sep = iptables_endpoint_chain(NAME, "tcp", f"{ip}:9000")
        left = len(backends) - number
        chance = f" -m statistic --mode random --probability {1 / left:.6f}" if left > 1 else ""
        lines += [
            f'-A {chain} -m comment --comment "{NAME} -> {ip}:9000"{chance} -j {sep}',
            f"-A {sep} -p tcp -j DNAT --to-destination {ip}:9000",
        ]
    body = "\n".join(line for line in lines if line)
    nat = (
        f"*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n{first}"
        f"-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n{body}\nCOMMIT\n"
    )
    text = before + nat + (f"*filter\n:FORWARD ACCEPT [0:0]\n{filters}COMMIT\n" if filters else "")
    return parse_ruleset(dumps_of(text, node=node), node_ips=[NODES[node]])


def _found(objects: list[KubeObject], *rulesets: Ruleset) -> dict[str, Finding]:
    return {f.check: f for f in compare(ClusterSnapshot(tuple(objects)), {r.node: r for r in rulesets})}


HINTED = [_service(), _slice(_endpoint("10.9.1.1", "a"), _endpoint("10.9.2.2", "b")), *_nodes()]


def test_nodes_of_two_zones_with_the_endpoints_of_their_zones_agree() -> None:
    assert _found(HINTED, _rules("10.9.1.1"), _rules("10.9.2.2", node="n2")) == {}


def test_hints_that_a_node_does_not_honour_are_told() -> None:
    finding = _found(HINTED, _rules("10.9.1.1", "10.9.2.2"))["topology-hints-ignored"]
    assert "10.9.2.2:9000" in finding.title


def test_nodes_of_one_zone_that_differ_disagree() -> None:
    objects = [_service(), _slice(_endpoint("10.9.1.1"), _endpoint("10.9.2.2")), *_nodes()]
    found = _found(objects, _rules("10.9.1.1", "10.9.2.2"), _rules("10.9.1.1", node="n2"))
    assert {"nodes-disagree", "missing-endpoint-rules"} <= set(found)


@pytest.mark.parametrize("turned", [False, True])
def test_one_address_that_terminates_and_is_ready_is_ready(turned: bool) -> None:
    both = [_endpoint("10.9.1.1", ready=False, serving=False, terminating=True), _endpoint("10.9.1.1")]
    objects = [_service(), _slice(*(reversed(both) if turned else both))]
    assert _found(objects, _rules("10.9.1.1")) == {}


def test_an_endpoint_that_only_terminates_is_used_while_none_is_ready() -> None:
    leaving = _endpoint("10.9.1.1", ready=False, serving=True, terminating=True)
    assert _found([_service(), _slice(leaving)], _rules("10.9.1.1")) == {}
    assert "stale-endpoint-rules" not in _found(
        [_service(), _slice(leaving, _endpoint("10.9.1.2"))], _rules("10.9.1.2")
    )


def test_a_node_port_and_outside_addresses_without_rules() -> None:
    outside = _service(type="NodePort", node_port=30900, externalIPs=["203.0.113.9"])
    found = _found([outside, _slice(_endpoint("10.9.1.1"))], _rules("10.9.1.1"))
    assert "203.0.113.9:80, *:30900" in found["service-without-rules"].title


def test_another_programs_translation_takes_the_packets_first() -> None:
    first = (
        ":CNI-HOSTPORT-DNAT - [0:0]\n:CNI-DN-aabbcc - [0:0]\n-A PREROUTING -j CNI-HOSTPORT-DNAT\n"
        "-A CNI-HOSTPORT-DNAT -p tcp --dport 80 -j CNI-DN-aabbcc\n"
        "-A CNI-DN-aabbcc -p tcp --dport 80 -j DNAT --to-destination 10.9.7.7:8080\n"
    )
    finding = _found([_service(), _slice(_endpoint("10.9.1.1"))], _rules("10.9.1.1", first=first))[
        "service-taken-by-others"
    ]
    assert "10.9.7.7:8080" in finding.title
    assert "(portmap)" in finding.title


@pytest.mark.parametrize("target", ["NOTRACK", "CT --notrack"])
def test_packets_that_a_cache_on_the_node_takes_are_not_translated(target: str) -> None:
    """As NodeLocal DNSCache has it: the Service's chains are right, and no packet comes to them."""
    raw = f"*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d {VIP}/32 -p tcp -m tcp --dport 80 -j {target}\nCOMMIT\n"
    objects = [_service(), _slice(_endpoint("10.9.1.1"))]
    found = _found(objects, _rules("10.9.1.1", before=raw))
    assert set(found) == {"service-not-tracked"}
    finding = found["service-not-tracked"]
    assert f"packets from pods to {VIP}:80 of {NAME} are not translated: raw PREROUTING 1 takes them" in finding.title
    assert finding.severity is Severity.INFO
    elsewhere = raw.replace("--dport 80", "--dport 53")
    assert _found(objects, _rules("10.9.1.1", before=elsewhere)) == {}


def test_a_part_of_the_connections_that_a_firewall_refuses() -> None:
    objects = [_service(), _slice(_endpoint("10.9.1.1"), _endpoint("10.9.1.2"))]
    found = _found(objects, _rules("10.9.1.1", "10.9.1.2", filters="-A FORWARD -d 10.9.1.2/32 -j REJECT\n"))
    assert "50% of the connections from pods" in found["service-partly-refused"].title


CONNTRACK = (
    "udp      17 29 src=10.9.3.3 dst=10.80.0.5 sport=4000 dport=80 src=10.9.9.9 dst=10.9.3.3 sport=9000 dport=4000\n"
    "tcp      6 300 ESTABLISHED src=10.9.3.3 dst=10.80.0.5 sport=4001 dport=80 src=10.9.9.9 dst=10.9.3.3 sport=9000 "
    "dport=4001 [ASSURED]\n"
    "tcp      6 300 ESTABLISHED src=10.9.3.3 dst=10.80.0.5 sport=4002 dport=80 src=10.9.1.1 dst=10.9.3.3 sport=9000 "
    "dport=4002 [ASSURED]\n"
    "tcp      6 300 SYN_SENT src=10.9.3.3 dst=10.80.0.5 sport=4003 dport=80 [UNREPLIED] src=10.80.0.5 dst=10.9.3.3 sport=80 "
    "dport=4003\n"
)


def test_connections_that_outlived_their_endpoint_or_their_rules() -> None:
    snapshot = ClusterSnapshot((_service(), _slice(_endpoint("10.9.1.1"))))
    found = list(stale_connections(snapshot, "n1", parse_conntrack(CONNTRACK)))
    assert [f.check for f in found] == ["stale-connection", "stale-connection"]
    assert "10.9.9.9:9000, which is no endpoint" in found[0].title
    assert "are not translated" in found[1].title


EXTERNAL = "198.51.100.7"


def _other_service() -> KubeObject:
    port = {"name": "", "port": 80, "protocol": "TCP", "targetPort": 8080}
    spec = {"clusterIP": "10.80.0.9", "clusterIPs": ["10.80.0.9"], "externalIPs": [EXTERNAL], "ports": [port]}
    return _object("Service", "web", spec=spec)


def test_of_two_services_with_one_external_address_the_one_that_gets_nothing_is_told_who_owns_it() -> None:
    other, chain = iptables_service_chain("ai/web", "tcp"), iptables_service_chain(NAME, "tcp")
    more = (
        f'-A KUBE-SERVICES -d 10.80.0.9/32 -p tcp -m comment --comment "ai/web cluster IP" --dport 80 -j {other}\n'
        f'-A KUBE-SERVICES -d {EXTERNAL}/32 -p tcp -m comment --comment "ai/web external IP" --dport 80 -j {other}\n'
        f'-A KUBE-SERVICES -d {EXTERNAL}/32 -p tcp -m comment --comment "{NAME} external IP" --dport 80 -j {chain}\n'
        f'-A {other} -m comment --comment "ai/web" -j KUBE-SEP-WEB\n'
        '-A KUBE-SEP-WEB -p tcp -m comment --comment "ai/web" -j DNAT --to-destination 10.1.0.99:8080'
    )
    objects = (*_nodes(), _service(externalIPs=[EXTERNAL]), _other_service(), _slice(_endpoint("10.1.0.1")))
    found = compare(ClusterSnapshot(objects), {"n1": _rules("10.1.0.1", more=more)})
    taken = [finding for finding in found if finding.check == "service-taken-by-others"]
    assert [finding.object.name for finding in taken if finding.object] == ["llm"]
    assert f"{EXTERNAL}:80 of {NAME} go to ai/web" in taken[0].title


@pytest.mark.parametrize(
    ("destination", "port", "to", "stale"),
    [
        (VIP, 80, "10.1.0.9", True),
        ("192.0.2.11", 30053, "10.1.0.9", True),
        (EXTERNAL, 80, "10.1.0.9", True),
        (VIP, 80, "", False),
    ],
)
def test_an_entry_that_still_sends_to_a_pod_of_a_service_without_endpoints_is_stale(
    destination: str, port: int, to: str, stale: bool
) -> None:
    spec = {
        "type": "NodePort",
        "clusterIP": VIP,
        "clusterIPs": [VIP],
        "externalIPs": [EXTERNAL],
        "ports": [{"name": "dns", "port": 80, "protocol": "UDP", "targetPort": 53, "nodePort": 30053}],
    }
    objects = (*_nodes(), _object("Service", "llm", spec=spec), _slice())
    reply = f"src={to} dst=10.1.0.5 sport=53" if to else f"src={destination} dst=10.1.0.5 sport={port}"
    line = f"udp 17 29 src=10.1.0.5 dst={destination} sport=5353 dport={port} {reply} dport=5353 [ASSURED] mark=0 use=1"
    found = list(stale_connections(ClusterSnapshot(objects), "n1", parse_conntrack(line)))
    assert bool(found) is stale


def _on(node: str, ip: str, *, for_node: str = "", zone: str = "", ready: bool = True) -> dict[str, Any]:
    hints = {"forZones": [{"name": zone}]} if zone else {}
    hints |= {"forNodes": [{"name": for_node}]} if for_node else {}
    conditions = {"ready": ready, "serving": True, "terminating": not ready}
    return {"addresses": [ip], "nodeName": node, "conditions": conditions, **({"hints": hints} if hints else {})}


def test_endpoints_of_other_nodes_for_a_local_traffic_policy_are_told() -> None:
    objects = [_service(internalTrafficPolicy="Local"), _slice(_on("n1", "10.9.1.1"), _on("n2", "10.9.2.2")), *_nodes()]
    assert _found(objects, _rules("10.9.1.1"), _rules("10.9.2.2", node="n2")) == {}
    found = _found(objects, _rules("10.9.1.1", "10.9.2.2"))
    assert set(found) == {"traffic-policy-ignored"}
    assert "10.9.2.2:9000" in found["traffic-policy-ignored"].title
    assert found["traffic-policy-ignored"].object is not None
    missing = _found(objects, _rules("10.9.2.2"))
    assert missing["missing-endpoint-rules"].severity is Severity.ERROR


def test_a_node_with_hinted_endpoints_of_its_own_uses_them_or_as_an_old_kube_proxy_those_of_its_zone() -> None:
    endpoints = [_on(node, ip, for_node=node, zone="a") for node, ip in (("n1", "10.9.1.1"), ("n2", "10.9.2.2"))]
    objects = [_service(), _slice(*endpoints), *_nodes()]
    assert _found(objects, _rules("10.9.1.1")) == {}
    assert _found(objects, _rules("10.9.1.1", "10.9.2.2")) == {}
    assert set(_found(objects, _rules("10.9.2.2"))) == {"missing-endpoint-rules", "topology-hints-ignored"}


def test_hints_of_endpoints_that_terminate_count_for_nothing() -> None:
    leaving = [_on("n1", "10.9.1.1", zone="a", ready=False), _on("n2", "10.9.2.2", zone="b", ready=False)]
    objects = [_service(), _slice(*leaving), *_nodes()]
    assert _found(objects, _rules("10.9.1.1", "10.9.2.2")) == {}


def test_a_node_without_a_zone_uses_every_endpoint() -> None:
    node = _object("Node", "n1", labels={}, status={"addresses": []})
    objects = [_service(), _slice(_endpoint("10.9.1.1", "a"), _endpoint("10.9.2.2", "b")), node]
    assert set(_found(objects, _rules("10.9.1.1"))) == {"missing-endpoint-rules"}
    assert _found(objects, _rules("10.9.1.1", "10.9.2.2")) == {}
