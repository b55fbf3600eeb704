"""The verbs on nodes with older releases of kube-proxy, in both modes, and through the API servers of those releases.

The nodes of the cluster run each kube-proxy in turn; in nftables mode it speaks to the API server of its own release, on what
the newest has stored. kubelet and controllers stay the newest. Kubernetes supports no kubelet that is newer than its API server,
but it runs the agents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_genainet import __version__
from tests.cluster.harness.binaries import NEWEST, OLDER_API_SERVERS, RELEASES
from tests.cluster.harness.cluster import Cluster, Done, Watching, bind_roles, rows
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

# Endpoint chains up to 1.35, a map of endpoints in 1.36 (nftables mode); iptables mode for the oldest and the newest.
PROXIES = [("iptables", RELEASES[0]), ("iptables", NEWEST), *(("nftables", release) for release in RELEASES)]


@pytest.fixture(scope="module")
def cluster(two_nodes: Cluster) -> Cluster:
    """In whichever mode it is: the tests change it."""
    return two_nodes


def run_everywhere(cluster: Cluster, mode: str, release: str) -> None:
    plane = cluster.plane
    assert plane is not None
    server = release if mode == "nftables" and release in OLDER_API_SERVERS else NEWEST
    if server != plane.release:
        plane.run_apiserver(server)
        for node in cluster.nodes:
            node.restart_kubelet()
        for node in cluster.nodes:
            node.wait_ready()
    cluster.run_kube_proxies(mode, release)


@pytest.fixture(scope="module")
def left_as_it_was(deployed: Cluster) -> Iterator[Cluster]:
    """The cluster, whose kube-proxies are put back after the last of the others."""
    if deployed.plane is None:
        pytest.skip("runs other releases of kube-proxy: not on another's cluster")
    mode = deployed.proxy_mode
    yield deployed
    run_everywhere(deployed, mode, NEWEST)


@pytest.fixture(scope="module", params=PROXIES, ids=" ".join)
def proxied(request: pytest.FixtureRequest, left_as_it_was: Cluster) -> tuple[Cluster, str]:
    mode, release = request.param
    run_everywhere(left_as_it_was, mode, release)
    return left_as_it_was, mode


def endpoints(cluster: Cluster) -> set[str]:
    selector = "labelSelector=app.kubernetes.io/name=my-llama-finetuned"
    pods = cluster.api().get(f"/api/v1/namespaces/chat/pods?{selector}")["items"]
    return {pod["status"]["podIP"] for pod in pods if not pod["metadata"].get("deletionTimestamp")}


# Of servers that answer late, as those of a busy machine do: true, and nothing to do with kube-proxy.
SLOW = {"slow-first-reply", "slow-backend"}


def findings(answer: list[dict[str, Any]]) -> list[str]:
    return [row["title"] for row in answer if row["kind"] == "finding" and row["severity"] != "info"]


def test_deploy_waits_until_the_agents_are_ready(proxied: tuple[Cluster, str]) -> None:
    """Through an older API server all of it anew; through the newest, nothing is left to do."""
    cluster, _ = proxied
    api, older = cluster.api(), cluster.plane.release != NEWEST  # type: ignore[union-attr]
    if older:
        api.delete("/apis/rbac.authorization.k8s.io/v1/namespaces/genainet/rolebindings/test-trace")
        done = cluster.cli("undeploy")
        assert done.status == 0 and "namespace genainet deleted" in done.out, done.out + done.err
    done = cluster.deploy("--wait")
    assert done.status == 0, done.err
    assert {line.rpartition(" ")[2] for line in done.out.splitlines()} == {"created" if older else "unchanged"}
    bind_roles(cluster)
    status = cluster.cli("status", "-o", "json", user="tracer")
    assert {row["node"]: row["state"] for row in rows(status.out)} == {node.name: "ready" for node in cluster.nodes}


def test_every_agent_answers_through_the_api_server(proxied: tuple[Cluster, str]) -> None:
    cluster, _ = proxied
    found = json.loads(cluster.cli("version", "-o", "json").out)
    assert found["server"] == f"v{cluster.plane.release}"  # type: ignore[union-attr]
    assert found["agents"] == {__version__: len(cluster.nodes)}


def test_rules_names_the_mode_and_every_endpoint(proxied: tuple[Cluster, str]) -> None:
    cluster, mode = proxied
    done = cluster.cli("rules", "svc/my-llama-svc", "-n", "chat", "-o", "json")
    answer = rows(done.out)
    assert (done.status, findings(answer)) == (0, []), done.out + done.err
    of_nodes = [row for row in answer if row["kind"] == "rules"]
    assert {(row["node"], row["mode"], row["state"]) for row in of_nodes} == {
        (node.name, mode, "in step") for node in cluster.nodes
    }
    for row in of_nodes:
        assert {backend["ip"] for backend in row["address"]["backends"]} == endpoints(cluster)


def test_doctor_finds_the_rules_in_step(proxied: tuple[Cluster, str]) -> None:
    cluster, _ = proxied
    done = cluster.cli("doctor", "-n", "chat", "--only", "kube-proxy-drift", "-o", "json", user="tracer")
    (outcome,) = [row for row in rows(done.out) if row["kind"] == "check"]
    assert (outcome["check"], outcome["outcome"], outcome["reasons"]) == ("kube-proxy-drift", "passed", []), done.err


@pytest.fixture(scope="module")
def traced(proxied: tuple[Cluster, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, str]:
    """A trace of the model's Service, ended once it has calls of both nodes' backends, and the bundle that it recorded."""
    cluster, _ = proxied
    bundle = str(tmp_path_factory.mktemp("traced") / "bundle")
    target = ("svc/my-llama-svc", "-n", "chat", "--timeout", "240s", "--record", bundle, "-o", "json")
    with Watching(cluster, ("trace", *target), user="tracer") as trace:
        trace.wait()
        wait_for("calls of both backends", lambda: {HOPS_ALONE, HOPS_AWAY} <= lengths(trace.printed()), 150)
        trace.interrupt()
        return trace.finish(120), bundle


HOPS_ALONE, HOPS_AWAY = 4, 6  # of a call to a backend beside the client, and on the other node


def lengths(text: str) -> set[int]:
    """How many hops the paths have that were printed, a path a line."""
    return {len(row["hops"]) for row in rows(text) if row["kind"] == "path"}


def paths_of(done: Done) -> list[dict[str, Any]]:
    return [row for row in rows(done.out) if row["kind"] == "path"]


def test_trace_names_the_service_and_its_translation(proxied: tuple[Cluster, str], traced: tuple[Done, str]) -> None:
    _, mode = proxied
    done, _ = traced
    checks = {finding["check"] for finding in rows(done.out)[-1]["findings"]}
    assert (checks - SLOW, done.status) == (set(), 1 if checks else 0), done.out + done.err
    paths = paths_of(done)
    assert {path["verdict"] for path in paths} == {"forwarded"}
    # What was seen from its first packet on: probes of two nodes are not attached at the same moment.
    chains = {path["nat"]["service_chain"] for path in paths if path["nat"] and path["backend"]["pod"]}
    assert {chain.partition("-")[0] for chain in chains if chain} == {"KUBE" if mode == "iptables" else "service"}


def test_trace_has_every_hop_to_the_other_node_and_prints_where_it_was_translated(
    proxied: tuple[Cluster, str], traced: tuple[Done, str]
) -> None:
    cluster, _ = proxied
    done, bundle = traced
    address = cluster.api().get("/api/v1/namespaces/chat/services/my-llama-svc")["spec"]["clusterIP"]
    begun = [path for path in paths_of(done) if path["backend"]]  # one that the end of the trace cut off has none
    away = [path for path in begun if path["backend"]["node"] == "node-2" and len(path["hops"]) == HOPS_AWAY]
    assert away, done.out + done.err
    printed = cluster.cli("trace", "svc/my-llama-svc", "-n", "chat", "--from", bundle, "--each").out
    for path in away:
        assert [hop["node"] for hop in path["hops"]] == ["node-1"] * 3 + ["node-2"] * 3
        assert [hop["point"] for hop in path["hops"]] == ["tx", "rx"] * 3
        assert path["hops"][0]["pod"].startswith("chatbot-ui-")
        assert path["hops"][-1]["pod"].startswith("my-llama-finetuned-")
        to_service, to_backend = f"{address}:80", f"{path['backend']['ip']}:8080"
        assert [hop["dst"] for hop in path["hops"]] == [to_service] * 2 + [to_backend] * 4
        assert (path["nat"]["before"], path["nat"]["after"]) == (to_service, to_backend)
        assert f"NAT {to_service} → {to_backend}" in printed


def test_the_kernel_names_the_chain_that_the_trace_names(
    proxied: tuple[Cluster, str], traced: tuple[Done, str]
) -> None:
    cluster, _ = proxied
    named = {path["nat"]["service_chain"] for path in paths_of(traced[0]) if path["nat"]} - {None}
    done = cluster.cli("rules", "svc/my-llama-svc", "-n", "chat", "--exact", "4", "-o", "json")
    counts = [row for row in rows(done.out) if row["kind"] == "exact" and row["node"] == "node-1" and row["rule"]]
    assert done.status == 0 and named, done.out + done.err
    assert named <= {count["rule"]["chain"] for count in counts if count["packets"]}
