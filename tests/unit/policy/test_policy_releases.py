"""What releases of enforcers are known to take otherwise than the API says, each from a public report."""

from __future__ import annotations

import pytest

from kubectl_genainet.policy import Direction
from tests.unit.policy.policy_cluster import (
    Raw,
    admin,
    ask,
    daemon_set,
    engine,
    labels,
    namespace,
    netpol,
    node,
    pod,
    verdict,
)

OBJECTS = (
    namespace("a", **{"kubernetes.io/metadata.name": "a"}),
    namespace("b", **{"kubernetes.io/metadata.name": "b"}),
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    pod("a/web", "10.0.0.1", node="n1", ports=(("http", "TCP", 8080),)),
    pod("a/api", "10.0.0.2", node="n2", ports=(("http", "TCP", 9090),)),
    pod("b/chat", "10.0.0.3", node="n2"),
)
RANGE = netpol("a/range", ingress=[{"ports": [{"port": 79, "endPort": 82}]}])
BY_NAME = netpol("b/out", policyTypes=["Egress"], egress=[{"ports": [{"port": "http"}]}])


def cilium(release: str) -> Raw:
    return daemon_set(f"quay.io/cilium/cilium:v{release}", "cilium-agent")


def config(**options: str) -> Raw:
    data = {"cluster-name": "default", **{key.replace("_", "-"): value for key, value in options.items()}}
    metadata = {"name": "cilium-config", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.mark.parametrize(
    ("release", "expected"), [("1.15.3", "unknown"), ("1.16.0", "allow"), ("1.20.1@sha256:0:1.2", "allow")]
)
def test_a_range_of_ports_is_its_first_port_to_old_ciliums(release: str, expected: str) -> None:
    judge = engine(*OBJECTS, cilium(release), config(), RANGE)
    assert verdict(judge, "b/chat", "a/web", 80) == expected
    assert verdict(judge, "b/chat", "a/web", 79) == "allow"
    assert verdict(judge, "b/chat", "a/web", 83) == "deny"


@pytest.mark.parametrize(("release", "expected"), [("1.19.4", "unknown"), ("1.20.0", "allow")])
def test_a_name_of_several_ports_matches_nothing_for_sure_in_egress(release: str, expected: str) -> None:
    judge = engine(*OBJECTS, cilium(release), config(), BY_NAME)
    assert verdict(judge, "b/chat", "a/web", 8080) == expected
    assert verdict(judge, "b/chat", "a/web", 9090) == "deny"


def names(pattern: str) -> Raw:
    dns = {
        "toEndpoints": [labels(**{"k8s-app": "kube-dns", "io.kubernetes.pod.namespace": "kube-system"})],
        "toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}],
    }
    spec = {"endpointSelector": {}, "egress": [dns, {"toFQDNs": [{"matchPattern": pattern}]}]}
    metadata = {"name": "names", "namespace": "b"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(("release", "deep"), [("1.18.9", "unknown"), ("1.19.0", "allow")])
def test_two_stars_stand_for_several_labels_since_1_19(release: str, deep: str) -> None:
    judge = engine(*OBJECTS, cilium(release), config(), names("**.hf.co"))
    assert verdict(judge, "b/chat", "cdn.hf.co", 443) == "allow"
    assert verdict(judge, "b/chat", "cdn.eu.hf.co", 443) == deep


@pytest.mark.parametrize(
    ("release", "expected"), [("1.19.5", "allow"), ("1.20.1", "deny"), ("1.20.9", "unknown"), ("", "unknown")]
)
def test_the_kubelets_probes_of_pods_that_only_the_option_isolates(release: str, expected: str) -> None:
    agent = (cilium(release),) if release else ()
    judge = engine(*OBJECTS, *agent, config(enable_policy="always"))
    assert verdict(judge, "192.168.0.1", "a/web") == expected
    closed = engine(*OBJECTS, *agent, config(enable_policy="always"), netpol("a/closed", policyTypes=["Ingress"]))
    assert verdict(closed, "192.168.0.1", "a/web") == "allow"


def test_sctp_is_dropped_by_cilium_unless_an_option_says_otherwise() -> None:
    judge = engine(*OBJECTS, cilium("1.20.0"), config())
    answer = ask(judge, "b/chat", "a/web", 38412, "SCTP")
    assert answer.verdict.value == "unknown"
    assert "enable-sctp" in answer.ingress.not_evaluated[0].reason
    assert judge.matrix("SCTP", 38412).allowed == (0,) * len(judge.rows.classes.classes)
    assert (
        verdict(engine(*OBJECTS, cilium("1.20.0"), config(enable_sctp="true")), "b/chat", "a/web", 1, "SCTP") == "allow"
    )


def sidecar(always: bool) -> Raw:
    raw = pod("a/db", "10.0.0.9", node="n1")
    port = {"name": "metrics", "containerPort": 8099, "protocol": "TCP"}
    restart = {"restartPolicy": "Always"} if always else {}
    return {**raw, "spec": {**raw["spec"], "initContainers": [{"name": "agent", "ports": [port], **restart}]}}


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ((), "allow"),
        ((daemon_set("docker.io/calico/node:v3.28.0"),), "unknown"),
        ((daemon_set("docker.io/calico/node:v3.29.0"),), "allow"),
        ((cilium("1.20.0"), config()), "deny"),
    ],
)
def test_named_ports_of_sidecars(agent: tuple[Raw, ...], expected: str) -> None:
    policy = netpol("a/metrics", podSelector=labels(app="db"), ingress=[{"ports": [{"port": "metrics"}]}])
    assert verdict(engine(*OBJECTS, *agent, policy, sidecar(always=True)), "b/chat", "a/db", 8099) == expected
    assert verdict(engine(*OBJECTS, *agent, policy, sidecar(always=False)), "b/chat", "a/db", 8099) == "deny"


@pytest.mark.parametrize(("tag", "expected"), [("v1.12.4", "unknown"), ("latest", "unknown"), ("v1.17.0", "allow")])
def test_kube_ovn_applied_the_exceptions_of_a_block_to_the_rules_other_peers(tag: str, expected: str) -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/24"]}}
    peers = [block, {"namespaceSelector": labels(**{"kubernetes.io/metadata.name": "a"})}]
    policy = netpol("b/out", policyTypes=["Egress"], egress=[{"to": peers}])
    judge = engine(*OBJECTS, daemon_set(f"kubeovn/kube-ovn:{tag}"), policy)
    assert verdict(judge, "b/chat", "a/web") == expected
    assert verdict(judge, "b/chat", "203.0.113.9") == "allow"
    assert not judge.enforcer.host_namespace


@pytest.mark.parametrize(
    ("arguments", "there", "wanted"),
    [
        (("--host-network-namespace=hosts",), "hosts", "hosts"),
        (("--host-network-namespace", "hosts"), "hosts", "hosts"),
        ((), "ovn-host-network", "ovn-host-network"),
        ((), "openshift-host-network", "openshift-host-network"),
    ],
)
def test_the_namespace_that_stands_for_the_nodes_is_the_agents(
    arguments: tuple[str, ...], there: str, wanted: str
) -> None:
    policy = netpol("a/in", ingress=[{"from": [{"namespaceSelector": labels(hosts="yes")}]}])
    agent = daemon_set("ghcr.io/example/ovn-kube-ubuntu:master", "ovnkube", *arguments)
    judge = engine(*OBJECTS, namespace(there, hosts="yes"), agent, policy)
    assert judge.enforcer.host_namespace == wanted
    answer = ask(judge, "192.168.0.2", "a/web")
    assert (answer.verdict.value, verdict(judge, "b/chat", "a/web")) == ("allow", "deny")
    assert [wanted in d.text for d in judge.deviations(answer, Direction.INGRESS)] == [True]


@pytest.mark.parametrize(("release", "expected"), [("1.15.6", "unknown"), ("1.16.0", "allow")])
def test_rules_isolate_whatever_enable_default_deny_says_before_1_16(release: str, expected: str) -> None:
    spec = {
        "endpointSelector": {},
        "enableDefaultDeny": {"egress": False},
        "egressDeny": [{"toCIDR": ["169.254.169.254/32"]}],
    }
    policy: Raw = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "metadata"},
        "spec": spec,
    }
    judge = engine(*OBJECTS, cilium(release), config(), policy)
    assert verdict(judge, "b/chat", "a/web") == expected
    assert verdict(judge, "b/chat", "169.254.169.254") == "deny"


BY_NAMESPACE: Raw = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "team", "namespace": "a"},
    "spec": {
        "endpointSelector": {},
        "ingress": [{"fromEndpoints": [labels(**{"io.cilium.k8s.namespace.labels.team": "x"})]}],
    },
}


@pytest.mark.parametrize(("release", "elsewhere"), [("1.14.1", "unknown"), ("1.16.0", "allow")])
def test_old_ciliums_take_peers_by_labels_of_namespaces_in_the_policys_own_alone(release: str, elsewhere: str) -> None:
    teams = [namespace(name, **{"kubernetes.io/metadata.name": name, "team": "x"}) for name in ("a", "b")]
    judge = engine(*OBJECTS[2:], *teams, cilium(release), config(), BY_NAMESPACE)
    assert verdict(judge, "a/api", "a/web") == "allow"
    assert verdict(judge, "b/chat", "a/web") == elsewhere
    assert verdict(judge, "203.0.113.9", "a/web") == "deny"


def test_weave_knows_no_ports_by_their_names() -> None:
    weave = daemon_set("docker.io/weaveworks/weave-npc:2.8.1", "weave-npc")
    answer = ask(
        engine(*OBJECTS, weave, netpol("a/in", ingress=[{"ports": [{"port": "http"}]}])), "b/chat", "a/web", 8080
    )
    assert answer.verdict.value == "unknown"
    assert "Weave Net does not support ports by their names" in str(answer.ingress.not_evaluated[0])
    by_number = netpol("a/in", ingress=[{"ports": [{"port": 8080}]}])
    assert verdict(engine(*OBJECTS, weave, by_number), "b/chat", "a/web", 8080) == "allow"


@pytest.mark.parametrize(("priority", "expected"), [(99, "deny"), (100, "unknown")])
def test_ovn_kubernetes_makes_admin_policies_of_the_first_hundred_priorities_alone(
    priority: int, expected: str
) -> None:
    agent = daemon_set("ghcr.io/ovn-kubernetes/ovn-kubernetes/ovn-kube-ubuntu:v1.1.0", "ovnkube-controller")
    rule = {"action": "Deny", "from": [{"namespaces": {}}]}
    late = admin("AdminNetworkPolicy", "late", priority=priority, subject={"namespaces": {}}, ingress=[rule])
    answer = ask(engine(*OBJECTS, agent, late), "b/chat", "a/web")
    assert answer.verdict.value == expected
    assert ("priorities 0 to 99 only" in str(answer.ingress.not_evaluated)) == (expected == "unknown")
