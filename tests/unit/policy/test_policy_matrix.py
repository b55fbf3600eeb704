"""The matrix: folded rows, cells, differences between two states, and its three forms."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from kubectl_genainet.errors import InputError
from kubectl_genainet.policy import PolicyEngine, PolicyVerdict
from kubectl_genainet.policy.reach.grid import differences, grid_of, with_applied
from kubectl_genainet.policy.reach.outside import beyond_of
from kubectl_genainet.policy.reach.outside_changes import beyond_differences
from kubectl_genainet.policy.reach.reasons import reasons_of
from kubectl_genainet.render.policy.beyond import print_beyond
from kubectl_genainet.render.policy.matrix import grid_html, grid_json, print_grid
from tests.unit.policy.policy_cluster import Raw, engine, labels, namespace, netpol, node, pod, snapshot

HTTP = (("http", "TCP", 8080), ("metrics", "TCP", 9090))
PODS = (
    namespace("ai"),
    namespace("web"),
    pod("ai/llama-0", "10.1.0.1", ports=HTTP, labels={"app": "llama", "statefulset.kubernetes.io/pod-name": "llama-0"}),
    pod("ai/llama-1", "10.1.0.2", ports=HTTP, labels={"app": "llama", "statefulset.kubernetes.io/pod-name": "llama-1"}),
    pod("ai/rag-5c9-x1", "10.1.0.3", labels={"app": "rag"}),
    pod("ai/rag-5c9-x2", "10.1.0.4", labels={"app": "rag"}),
    pod("ai/done", "10.1.0.5", phase="Succeeded"),
    pod("web/chat", "10.2.0.1"),
)
POLICY = netpol(
    "ai/llama",
    podSelector=labels(app="llama"),
    ingress=[{"from": [{"podSelector": labels(app="rag")}], "ports": [{"port": "http"}]}],
)


def test_replicas_are_one_row_whatever_labels_of_one_pod_they_have() -> None:
    grid = grid_of(engine(*PODS, POLICY), namespace="", protocol="", port=None)
    assert [(g.name, len(g.pods)) for g in grid.groups] == [
        ("ai/llama-* (2)", 2),
        ("ai/rag-5c9-* (2)", 2),
        ("web/chat", 1),
    ]


def test_pods_that_a_policy_tells_apart_are_rows_of_their_own() -> None:
    one = netpol("ai/one", podSelector=labels(**{"statefulset.kubernetes.io/pod-name": "llama-0"}))
    grid = grid_of(engine(*PODS, one), namespace="ai", protocol="TCP", port=80)
    assert [g.name for g in grid.groups] == ["ai/llama-0", "ai/llama-1", "ai/rag-5c9-* (2)"]


def test_without_a_port_each_destination_is_judged_on_the_ports_it_declares() -> None:
    grid = grid_of(engine(*PODS, POLICY), namespace="ai", protocol="", port=None)
    llama, rag = grid.groups
    assert grid.cell(rag, llama) == {("TCP", 8080): PolicyVerdict.ALLOW, ("TCP", 9090): PolicyVerdict.DENY}
    assert grid.cell(llama, rag) == {}


def test_the_table_numbers_its_columns_and_keeps_to_the_width() -> None:
    out = StringIO()
    print_grid(Console(file=out, width=60), grid_of(engine(*PODS, POLICY), namespace="", protocol="", port=None))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0].split() == ["FROM", "\\", "TO", "1", "2", "3"]
    assert lines[2].split() == ["2", "ai/rag-5c9-*", "(2)", "8080", "·", "·"]
    assert max(map(len, lines[:4])) <= 60


def test_json_has_one_object_for_each_source_destination_and_port() -> None:
    found = list(grid_json(grid_of(engine(*PODS, POLICY), namespace="ai", protocol="TCP", port=8080)))
    verdicts = {(f["from"], f["to"]): f["verdict"] for f in found}
    assert verdicts == {
        ("ai/llama-* (2)", "ai/llama-* (2)"): "deny",
        ("ai/llama-* (2)", "ai/rag-5c9-* (2)"): "allow",
        ("ai/rag-5c9-* (2)", "ai/llama-* (2)"): "allow",
        ("ai/rag-5c9-* (2)", "ai/rag-5c9-* (2)"): "allow",
    }
    assert found[0]["from_pods"] == ["ai/llama-0", "ai/llama-1"]


def test_the_page_escapes_what_comes_from_the_cluster() -> None:
    hostile = pod("ai/x", "10.1.0.9") | {"metadata": {"name": "<script>x", "namespace": "ai", "labels": {}}}
    page = grid_html(grid_of(engine(*PODS, hostile), namespace="ai", protocol="TCP", port=80), "<b>")
    assert "<script>x" not in page and "&lt;script&gt;x" in page
    assert "<title>&lt;b&gt;</title>" in page


def test_differences_are_folded_and_name_both_verdicts() -> None:
    before = engine(*PODS)
    after = PolicyEngine(with_applied(before.snapshot, snapshot(POLICY)))
    found = differences(before, after, namespace="", ports={("TCP", 9090)})
    assert {(d.source, d.destination, d.port, d.before, d.after) for d in found} == {
        (source, "ai/llama-* (2)", 9090, PolicyVerdict.ALLOW, PolicyVerdict.DENY)
        for source in ("ai/llama-* (2)", "ai/rag-5c9-* (2)", "web/chat")
    }
    assert differences(before, before, namespace="", ports={("TCP", 9090)}) == []


def test_manifests_without_pods_are_applied_on_top_and_with_pods_are_a_state_of_their_own() -> None:
    before = snapshot(*PODS, POLICY)
    changed = netpol("ai/llama", podSelector=labels(app="llama"), ingress=[{}])
    assert with_applied(before, snapshot(changed)).of("NetworkPolicy")[0].raw["spec"]["ingress"] == [{}]
    assert with_applied(before, snapshot(*PODS)).of("NetworkPolicy") == ()


def test_a_namespace_without_pods_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InputError) as caught:
        grid_of(engine(*PODS), namespace="nope", protocol="TCP", port=80)
    assert caught.value.message == "there are no pods in namespace nope"


def test_a_difference_is_about_ports_that_the_destination_declares() -> None:
    before = engine(*PODS)
    after = PolicyEngine(with_applied(before.snapshot, snapshot(netpol("ai/closed"))))
    ports = {("TCP", 8080), ("TCP", 9090)}
    every = differences(before, after, namespace="", ports=ports)
    declared = differences(before, after, namespace="", ports=ports, declared_only=True)
    assert "ai/rag-5c9-* (2)" in {d.destination for d in every}
    assert {d.destination for d in declared} == {"ai/llama-* (2)"}


def beyond(*objects: Raw) -> dict[tuple[str, str], str]:
    e = engine(*objects)
    grid = grid_of(e, namespace="ai", protocol="", port=None)
    cells = beyond_of(e, grid)
    return {(c.beyond.name, c.direction.value): c.verdict.value for c in cells if c.group.pods[0][1] == "llama"}


LLAMA = pod("ai/llama", "10.1.0.1", ports=HTTP, node="n1", labels={"app": "llama"})
NODES = (node("n1", "192.168.0.1"), node("n2", "192.168.0.2"))


def test_nodes_the_api_server_clients_and_the_internet_are_rows() -> None:
    closed = netpol("ai/closed", policyTypes=["Ingress", "Egress"])
    found = beyond(namespace("ai"), *NODES, LLAMA, closed)
    assert found == {
        ("OWN_NODE", "ingress"): "allow",
        ("OWN_NODE", "egress"): "allow",
        ("OTHER_NODES", "ingress"): "deny",
        ("OTHER_NODES", "egress"): "deny",
        ("API_SERVER", "ingress"): "deny",
        ("API_SERVER", "egress"): "deny",
        ("CLIENT", "ingress"): "unknown",
        ("INTERNET", "ingress"): "deny",
        ("INTERNET", "egress"): "deny",
        ("DNS", "egress"): "deny",
    }
    assert set(beyond(namespace("ai"), *NODES, LLAMA).values()) == {"allow"}


def test_a_block_that_is_a_part_of_the_internet_leaves_it_open_which_address() -> None:
    some = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "9.9.9.0/24"}}]}])
    private = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])
    every = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])
    verdicts = [beyond(namespace("ai"), LLAMA, policy)["INTERNET", "egress"] for policy in (some, private, every)]
    assert verdicts == ["unknown", "deny", "allow"]


def test_the_api_server_is_known_by_its_endpoints() -> None:
    item = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.168.0.9"]}],
        "ports": [{"port": 6443}],
    }
    rule = {"to": [{"ipBlock": {"cidr": "192.168.0.9/32"}}], "ports": [{"port": 6443}]}
    policy = netpol("ai/api", policyTypes=["Egress"], egress=[rule])
    assert beyond(namespace("ai"), item, LLAMA, policy)["API_SERVER", "egress"] == "allow"
    assert beyond(namespace("ai"), LLAMA, policy)["API_SERVER", "egress"] == "unknown"


def test_the_page_has_reasons_filters_a_dark_mode_a_viewport_and_the_time() -> None:
    e = engine(*PODS, POLICY)
    grid = grid_of(e, namespace="", protocol="", port=None)
    page = grid_html(
        grid, "t", beyond=beyond_of(e, grid), reasons=reasons_of(e, grid), made="Made 2026-01-02 03:04:05 UTC"
    )
    assert 'data-why="8080/TCP deny: ingress isolated by NetworkPolicy ai/llama' in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page and "03:04:05 UTC" in page
    assert "from API server" in page and 'name="closed"' in page


def test_rows_beyond_the_pods_have_the_numbers_of_the_grid() -> None:
    e = engine(*PODS, POLICY)
    grid = grid_of(e, namespace="", protocol="", port=None)
    out = StringIO()
    print_beyond(Console(file=out, width=120), grid, beyond_of(e, grid))
    lines = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert lines[0] == ["BEYOND", "THE", "PODS", "1", "2", "3"]
    assert ["from", "internet", "✗", "·", "·"] in lines
    assert ["to", "internet", "(443)", "✓", "✓", "✓"] in lines


def test_differences_beyond_the_pods_are_named_too() -> None:
    before = engine(*PODS)
    closed = PolicyEngine(with_applied(before.snapshot, snapshot(netpol("ai/closed", podSelector=labels(app="llama")))))
    found = beyond_differences(before, closed, namespace="", ports=())
    assert {(d.source, d.destination) for d in found if d.after is PolicyVerdict.DENY} == {
        (source, "ai/llama-* (2)") for source in ("other nodes", "API server", "internet")
    }
    assert {d.port for d in found} == {8080, 9090}
    assert beyond_differences(before, before, namespace="", ports=()) == []
    out = netpol("web/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "198.18.0.0/15"}}]}])
    leaving = PolicyEngine(with_applied(before.snapshot, snapshot(out)))
    to = {d.destination for d in beyond_differences(before, leaving, namespace="", ports=(("TCP", 443),))}
    assert to >= {"internet", "API server", "other nodes"}


def test_what_is_sent_beyond_the_pods_is_compared_on_the_ports_that_policies_name() -> None:
    before = engine(*PODS)
    rule = {"ports": [{"port": 5432}, {"port": 8000, "endPort": 8010}, {"port": 53, "protocol": "UDP"}]}
    out = netpol("web/out", policyTypes=["Egress"], egress=[rule])
    after = PolicyEngine(with_applied(before.snapshot, snapshot(out)))
    found = {
        (d.protocol, d.port)
        for d in beyond_differences(before, after, namespace="web", ports=())
        if d.destination == "internet"
    }
    assert found == {
        ("TCP", 443),
        ("TCP", 5433),
        ("TCP", 8011),
        ("UDP", 54),
    }  # what is closed; the named ones stay open


AMBIENT = {"istio.io/dataplane-mode": "ambient"}


def test_pods_of_the_ambient_mesh_reach_each_other_through_its_tunnel() -> None:
    mesh = (namespace("ai", **AMBIENT), *PODS[1:])
    tunnel = netpol("ai/hbone", podSelector=labels(app="llama"), ingress=[{"ports": [{"port": 15008}]}])
    for policies, wanted in (((POLICY,), PolicyVerdict.DENY), ((POLICY, tunnel), PolicyVerdict.ALLOW)):
        e = engine(*mesh, *policies)
        grid = grid_of(e, namespace="ai", protocol="", port=None)
        llama, rag = grid.groups
        assert grid.cell(rag, llama) == {("TCP", 8080): wanted, ("TCP", 9090): wanted}
    assert "in its tunnel (HBONE)" in reasons_of(e, grid)[1, 0]


def test_replicas_of_which_some_are_in_the_mesh_are_known_where_both_ways_agree() -> None:
    pods = [pod(f"ai/x-{i}", f"10.1.0.{i}", ports=HTTP[:1], labels={"app": "x"}) for i in (1, 2)]
    pods[1]["spec"]["containers"].append({"name": "istio-proxy"})  # a sidecar: not in the mesh of the node
    others = [pod(f"ai/y-{i}", f"10.1.1.{i}", labels={"app": "y"}) for i in (1, 2)]
    only = netpol("ai/x", podSelector=labels(app="x"), ingress=[{"ports": [{"port": 8080}]}])
    grid = grid_of(engine(namespace("ai", **AMBIENT), *pods, *others, only), namespace="ai", protocol="", port=None)
    x, y = grid.groups
    assert grid.cell(y, x) == {("TCP", 8080): PolicyVerdict.UNKNOWN}
    assert grid_of(engine(*pods, *others), namespace="ai", protocol="", port=None).cell(y, x) == {
        ("TCP", 8080): PolicyVerdict.ALLOW
    }


def test_a_client_outside_appears_as_a_node_or_as_itself() -> None:
    partner = netpol("ai/in", ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])
    nodes = netpol("ai/in", ingress=[{"from": [{"ipBlock": {"cidr": "192.168.0.0/16"}}]}])

    def client(policy: Raw, **spec: str) -> str:
        full = {"selector": {"app": "llama"}, "ports": [{"port": 80}], "type": "LoadBalancer", **spec}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "ai"}, "spec": full}
        return beyond(namespace("ai"), *NODES, LLAMA, service, policy)["CLIENT", "ingress"]

    assert client(nodes) == client(partner) == "allow"
    assert client(nodes, externalTrafficPolicy="Local") == "deny"
    assert client(partner, externalTrafficPolicy="Local") == "allow"


def test_the_way_to_the_resolver_is_a_row() -> None:
    open_dns = netpol("ai/out", policyTypes=["Egress"], egress=[{"ports": [{"port": 53, "protocol": "UDP"}]}])
    assert beyond(namespace("ai"), LLAMA, open_dns)["DNS", "egress"] == "allow"
    https = netpol("ai/out", policyTypes=["Egress"], egress=[{"ports": [{"port": 443}]}])
    assert beyond(namespace("ai"), LLAMA, https)["DNS", "egress"] == "deny"
