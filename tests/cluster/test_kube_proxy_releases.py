"""The verbs beside older releases of kube-proxy, in both modes: the nodes of the cluster run each of them in turn.

In nftables mode the last release before the newest has its API server too. A kubelet and controllers that are newer than that,
and an API server's going back by one release, are nothing that Kubernetes supports; over more releases it was not tried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kubectl_genainet import __version__
from tests.cluster.harness.binaries import NEWEST, OLDER_API_SERVERS, RELEASES
from tests.cluster.harness.cluster import Cluster, rows
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

# Endpoint chains up to 1.35, a map of endpoints in 1.36 (nftables mode); iptables mode for the oldest and the newest.
PROXIES = [("iptables", RELEASES[0]), ("iptables", NEWEST), *(("nftables", release) for release in RELEASES)]


def has_rules(node: KubeNode) -> bool:
    begins = "" if node.proxy_mode == "nftables" else "-A KUBE-SERVICES "
    return any(line.startswith(begins) and "my-llama-svc" in line for line in node.proxy_rules().splitlines())


def run_everywhere(cluster: Cluster, mode: str, release: str) -> None:
    plane = cluster.plane
    assert plane is not None
    server = release if (mode, release) == ("nftables", OLDER_API_SERVERS[-1]) else NEWEST
    if server != plane.release:
        plane.run_apiserver(server)
    for node in cluster.nodes:
        node.route_services(nowhere=True)
        node.run_kube_proxy(mode, release)
    for node in cluster.nodes:
        wait_for(f"the rules of {node.name}", partial(has_rules, node), 240)
        node.route_services()


@pytest.fixture(scope="module")
def left_as_it_was(deployed: Cluster) -> Iterator[Cluster]:
    """The cluster, whose kube-proxies are put back after the last of the others."""
    if deployed.plane is None:
        pytest.skip("runs other releases of kube-proxy: not on another's cluster")
    yield deployed
    run_everywhere(deployed, deployed.proxy_mode, NEWEST)


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


def test_trace_names_the_service_and_its_translation(proxied: tuple[Cluster, str]) -> None:
    cluster, mode = proxied
    done = cluster.cli("trace", "svc/my-llama-svc", "-n", "chat", "--timeout", "10s", "-o", "json")
    answer = rows(done.out)
    checks = {finding["check"] for finding in answer[-1]["findings"]}
    assert (checks - SLOW, done.status) == (set(), 1 if checks else 0), done.out + done.err
    paths = [row for row in answer if row["kind"] == "path"]
    assert {path["verdict"] for path in paths} == {"forwarded"}
    # What was seen from its first packet on: probes of two nodes are not attached at the same moment.
    chains = {path["nat"]["service_chain"] for path in paths if path["nat"] and path["backend"]["pod"]}
    assert {chain.partition("-")[0] for chain in chains if chain} == {"KUBE" if mode == "iptables" else "service"}
