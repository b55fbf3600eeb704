"""NodeLocal DNSCache on the nodes: who answered, on whose behalf the cache asks, and where `trace` sees the query end."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import pytest

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.model.kube import Pod
from tests.lab.labtest import RunningLab, fresh_name, running
from tests.lab.names.nodelocal import KUBE_DNS, LOCAL, UPSTREAM_SERVICE, nodelocal

SECONDS = 6


@pytest.fixture(scope="module")
def lab(quiet_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    folder = tmp_path_factory.mktemp("nodelocal")
    shutil.copytree(quiet_manifests, folder, dirs_exist_ok=True)
    (folder / "kube-dns-upstream.json").write_text(json.dumps(UPSTREAM_SERVICE))
    with running(LabSpec(name=fresh_name(), nodes=2, manifests=str(folder))) as lab, nodelocal(lab, folder):
        yield lab


def start(lab: RunningLab, *command: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "kubectl_genainet", *command, "--lab", lab.name, "-o", "json"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ})


def ask(lab: RunningLab, pod: Pod, server: str, name: str) -> None:
    with netns.inside(lab.pod_netns(pod)):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(5)
        client.connect((server, 53))
        client.send(dns.message.make_query(name, "A").to_wire())
        client.recv(4096)


def keep_asking(lab: RunningLab, pod: Pod, ended: threading.Event) -> None:
    """A name that the cache knows after the first time, and one that it has to ask for each time."""
    for number in itertools.count():
        ask(lab, pod, KUBE_DNS, "my-llama-svc.default.svc.cluster.local")
        ask(lab, pod, LOCAL, f"model-{number}.default.svc.cluster.local")
        if ended.wait(0.3):
            return


@pytest.fixture(scope="module")
def watched(lab: RunningLab) -> dict[str, list[dict[str, Any]]]:
    """What `dns` and `trace` print while a pod asks."""
    client, ended = lab.pods("rag-app")[0], threading.Event()
    asking = threading.Thread(target=keep_asking, args=(lab, client, ended))
    asking.start()
    try:
        timeout = ("--timeout", f"{SECONDS}s")
        commands = {
            "dns": start(lab, "dns", *timeout),
            "trace": start(lab, "trace", "svc/kube-dns", "-n", "kube-system", *timeout),
        }
        printed = {name: process.communicate(timeout=120)[0] for name, process in commands.items()}
    finally:
        ended.set()
        asking.join()
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in printed.items()}


def exchanges(watched: dict[str, list[dict[str, Any]]], address: str) -> list[dict[str, Any]]:
    """The pod's own queries of which all is seen: probes are attached one after the other."""
    of_pod = [e for e in watched["dns"] if e["kind"] == "dns_exchange" and e["client"]["workload"] == "rag-app"]
    return [e for e in of_pod if e["asked"]["ip"] == address and e["split"]["server"] is not None]


def test_the_cache_of_the_clients_node_is_the_server(lab: RunningLab, watched: dict[str, list[dict[str, Any]]]) -> None:
    node = lab.pods("rag-app")[0].spec.node_name
    for address in (KUBE_DNS, LOCAL):
        answered = exchanges(watched, address)
        assert answered
        for exchange in answered:
            assert (exchange["server"]["ip"], exchange["server"]["node"]) == (address, node)
            assert exchange["server"]["pod"] is None
            assert exchange["outcome"] in ("answered", "failed")
            assert not exchange["upstream"]


def test_what_the_cache_asks_is_upstream_of_its_client(
    lab: RunningLab, watched: dict[str, list[dict[str, Any]]]
) -> None:
    asked = {exchange["name"] for exchange in exchanges(watched, LOCAL)}
    of_node = [
        e for e in watched["dns"] if e["kind"] == "dns_exchange" and e["client"]["pod"] is None and e["name"] in asked
    ]
    assert of_node
    assert all(exchange["upstream"] for exchange in of_node)
    waits = [e["split"] for e in exchanges(watched, LOCAL) if e["split"]["upstream"] is not None]
    assert waits
    assert all(split["upstream"] <= split["server"] for split in waits)
    summary = watched["dns"][-1]
    node = lab.pods("rag-app")[0].spec.node_name
    assert f"DNS cache of {node}" in {row["client"] for row in summary["clients"]}
    assert summary["upstream"]["queries"] >= len(of_node)


def test_trace_ends_at_the_node_and_not_before_a_backend(
    lab: RunningLab, watched: dict[str, list[dict[str, Any]]]
) -> None:
    node = lab.pods("rag-app")[0].spec.node_name
    paths = [
        path for path in watched["trace"] if path["kind"] == "path" and path["flow"]["client"]["workload"] == "rag-app"
    ]
    assert paths
    for path in paths:
        assert path["verdict"] == "forwarded"
        assert (path["backend"]["ip"], path["backend"]["node"]) == (KUBE_DNS, node)
        assert path["nat"] is None


def test_rules_name_what_keeps_the_queries_from_translation(lab: RunningLab) -> None:
    answer = start(lab, "rules", "svc/kube-dns", "-n", "kube-system").communicate(timeout=180)[0]
    findings = [row for row in map(json.loads, answer.splitlines()) if row["kind"] == "finding"]
    assert {finding["check"] for finding in findings} == {"service-not-tracked"}
    assert all("NodeLocal DNSCache" in finding["title"] for finding in findings)
