"""Who gets the packets to a port of the node: a pod's hostPort, a Service, another pod, a rule that was left behind."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.finding import Finding, NotChecked, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.proxy import dumps_of, parse_ruleset
from kubectl_genainet.proxy.drift import comparison
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.names import iptables_service_chain

NODE_IP = "192.0.2.11"


def _object(kind: str, name: str, **raw: Any) -> KubeObject:
    labels = raw.pop("labels", {})
    metadata = {"name": name, "namespace": "" if kind == "Node" else "ai", "labels": labels}
    return KubeObject({"apiVersion": "v1", "kind": kind, "metadata": metadata, **raw})


def _pod(name: str, ip: str, port: int = 8080, host_port: int = 80, **spec: Any) -> KubeObject:
    asked = {"containerPort": port, "protocol": "TCP", **({"hostPort": host_port} if host_port else {})}
    asked |= {"hostIP": host_ip} if (host_ip := spec.pop("host_ip", "")) else {}
    labels = spec.pop("labels", {})
    containers = [{"name": "c", "ports": [asked]}]
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
    return _object("Pod", name, labels=labels, spec={"nodeName": "n1", "containers": containers, **spec}, status=status)


def _service(**spec: Any) -> KubeObject:
    port = {"port": 80, "protocol": "TCP", "targetPort": 8080, **spec.pop("port", {})}
    return _object(
        "Service", "web", spec={"clusterIP": "10.80.0.5", "clusterIPs": ["10.80.0.5"], "ports": [port], **spec}
    )


NODE = _object("Node", "n1", status={"addresses": [{"type": "InternalIP", "address": NODE_IP}]})
FRONT = _pod("front", "10.9.0.4")


def _portmap(ip: str, chain: str, *, port: int = 80, at: str = "") -> str:
    return (
        f":{chain} - [0:0]\n-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports {port} -j {chain}\n"
        f"-A {chain} {at}-p tcp -m tcp --dport {port} -j DNAT --to-destination {ip}:8080\n"
    )


def _service_at(match: str, ip: str = "10.9.0.9") -> str:
    chain = iptables_service_chain("ai/web", "tcp")
    return (
        f":KUBE-SERVICES - [0:0]\n:{chain} - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n"
        f'-A KUBE-SERVICES -d 10.80.0.5/32 -p tcp -m comment --comment "ai/web cluster IP" --dport 80 -j {chain}\n'
        f'-A KUBE-SERVICES {match} -p tcp -m comment --comment "ai/web" -j {chain}\n'
        f"-A {chain} -p tcp -j DNAT --to-destination {ip}:8080\n"
    )


JUMP = ":CNI-HOSTPORT-DNAT - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n"


def _looked_at(*rules: str, objects: tuple[KubeObject, ...], **rest: Any) -> list[Finding | NotChecked]:
    text = f"*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{''.join(rules)}COMMIT\n"
    ruleset = parse_ruleset(dumps_of(text, node="n1"), node_ips=[NODE_IP])
    snapshot = ClusterSnapshot((NODE, *objects), left_out=rest.get("left_out", ()))
    services = [s for s in snapshot.services if s.metadata.name == "web"] if rest.get("only_web") else None
    return comparison(snapshot, [NodeRules("n1", ruleset)], services=services)


def _taken(*rules: str, objects: tuple[KubeObject, ...], **rest: Any) -> Finding | None:
    results = _looked_at(*rules, objects=objects, **rest)
    checks = {item.check: item for item in results if isinstance(item, Finding)}
    return checks.get("host-port-taken")


def test_a_host_port_that_reaches_its_pod_is_fine() -> None:
    results = _looked_at(JUMP, _portmap("10.9.0.4", "CNI-DN-a"), objects=(FRONT,))
    assert not [item for item in results if isinstance(item, Finding) and item.check.startswith("host-port")]


@pytest.mark.parametrize(
    ("match", "spec", "via"),
    [
        ("-m addrtype --dst-type LOCAL --dport 80", {"type": "NodePort", "port": {"nodePort": 80}}, "node port"),
        (f"-d {NODE_IP}/32 --dport 80", {"externalIPs": [NODE_IP]}, "external address"),
        (
            f"-d {NODE_IP}/32 --dport 80",
            {"type": "LoadBalancer", "status": {"loadBalancer": {"ingress": [{"ip": NODE_IP}]}}},
            "load balancer address",
        ),
    ],
)
def test_a_service_that_takes_a_host_port_is_named_with_what_it_takes_it_by(
    match: str, spec: dict[str, Any], via: str
) -> None:
    status = spec.pop("status", {})
    service = KubeObject({**_service(**spec).raw, "status": status})
    rules = (_service_at(match), JUMP, _portmap("10.9.0.4", "CNI-DN-a"))
    finding = _taken(*rules, objects=(FRONT, service))
    assert finding is not None
    assert f"{NODE_IP}:80, a host port of Pod ai/front, go to Service ai/web, whose {via} it is" in finding.title
    assert finding.severity is Severity.ERROR
    assert _taken(*rules, objects=(FRONT, service), only_web=True) == finding


def test_the_other_way_a_host_port_that_takes_a_services_node_port_is_named_with_its_pod() -> None:
    service = _service(type="NodePort", port={"nodePort": 80})
    rules = (JUMP, _portmap("10.9.0.4", "CNI-DN-a"), _service_at("-m addrtype --dst-type LOCAL --dport 80"))
    results = _looked_at(*rules, objects=(FRONT, service))
    checks = {item.check: item for item in results if isinstance(item, Finding)}
    assert "host-port-taken" not in checks
    assert "10.9.0.4:8080 (pod ai/front) by nat CNI-DN-a (portmap)" in checks["service-taken-by-others"].title


def test_of_two_pods_with_one_host_port_the_second_is_told_that_the_first_has_it() -> None:
    both = (FRONT, _pod("back", "10.9.0.5"))
    finding = _taken(JUMP, _portmap("10.9.0.4", "CNI-DN-a"), _portmap("10.9.0.5", "CNI-DN-b"), objects=both)
    assert finding is not None and finding.object is not None
    assert finding.object.name == "back"
    assert "10.9.0.4:8080 (pod ai/front) by nat CNI-DN-a (portmap)" in finding.title


def test_a_port_of_two_addresses_of_the_node_is_no_conflict() -> None:
    here, there = _pod("front", "10.9.0.4", host_ip=NODE_IP), _pod("back", "10.9.0.5", host_ip="192.0.2.99")
    rules = (
        _portmap("10.9.0.5", "CNI-DN-b", at="-d 192.0.2.99/32 "),
        _portmap("10.9.0.4", "CNI-DN-a", at=f"-d {NODE_IP}/32 "),
    )
    assert _taken(JUMP, *rules, objects=(here, there)) is None


def test_rules_that_a_pod_left_behind_take_the_port_of_its_successor() -> None:
    rules = (JUMP, _portmap("10.9.0.77", "CNI-DN-gone"), _portmap("10.9.0.4", "CNI-DN-a"))
    finding = _taken(*rules, objects=(FRONT,))
    assert finding is not None
    assert "10.9.0.77:8080 (an address of no pod that was read) by nat CNI-DN-gone (portmap)" in finding.title


def test_a_translation_by_hand_takes_the_port_of_a_pod_on_the_hosts_network() -> None:
    pod = _pod("proxy", NODE_IP, port=80, host_port=80, hostNetwork=True)
    assert _taken(objects=(pod,)) is None
    finding = _taken("-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.9.0.8:3128\n", objects=(pod,))
    assert finding is not None
    assert "10.9.0.8:3128" in finding.title
    assert "by nat PREROUTING" in finding.title


def test_a_pod_that_is_its_services_own_way_in_is_no_error() -> None:
    balancer = _pod("svclb", "10.9.0.4", labels={"svccontroller.k3s.cattle.io/svcname": "web"})
    service = _service(externalIPs=[NODE_IP])
    finding = _taken(_service_at(f"-d {NODE_IP}/32 --dport 80"), objects=(balancer, service))
    assert finding is not None
    assert finding.severity is Severity.INFO


def test_a_host_port_without_rules_is_told_where_nothing_serves_host_ports_without_rules() -> None:
    """As firewalld leaves it when it reloads: kube-proxy writes its rules again, nobody those of host ports."""
    for rules in ((JUMP, _portmap("10.9.0.7", "CNI-DN-b", port=9090)), ()):
        checks = [getattr(item, "check", "") for item in _looked_at(*rules, objects=(FRONT,))]
        assert "host-port-without-rules" in checks
    cilium = _pod("cilium-x7", NODE_IP, host_port=0, hostNetwork=True, labels={"k8s-app": "cilium"})
    for chain, objects in ((":CILIUM_PRE_nat - [0:0]\n", (FRONT,)), ("", (FRONT, cilium))):
        checks = [getattr(item, "check", "") for item in _looked_at(chain, objects=objects)]
        assert "host-port-without-rules" not in checks


def test_a_host_ports_rule_for_no_address_sends_nothing() -> None:
    """As a plugin wrote it that took an address of all for one: `-d 0.0.0.0/32`."""
    checks = [
        getattr(item, "check", "")
        for item in _looked_at(JUMP, _portmap("10.9.0.4", "CNI-DN-a", at="-d 0.0.0.0/32 "), objects=(FRONT,))
    ]
    assert "host-port-without-rules" in checks


def test_nothing_is_said_of_pods_that_were_not_read_or_rules_that_can_not_be() -> None:
    lost = _service_at("-m addrtype --dst-type LOCAL --dport 80")
    left_out = (LeftOut("Pod", "forbidden"),)
    assert _taken(lost, objects=(FRONT,), left_out=left_out) is None
    open_question = "-A PREROUTING -p tcp -m sorcery --spell x -j DNAT --to-destination 10.9.0.8:1\n"
    results = _looked_at(open_question, JUMP, _portmap("10.9.0.4", "CNI-DN-a"), objects=(FRONT,))
    assert _taken(open_question, JUMP, _portmap("10.9.0.4", "CNI-DN-a"), objects=(FRONT,)) is None
    assert any("host port" in item.what for item in results if isinstance(item, NotChecked))
