"""`trace` on real connections: the exact way of the first packet, against the lab's wiring and the rules' own counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.lab.spec import AddressFamily, LabSpec, Overlay, ProxyMode
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.packet import address_text
from tests.lab.labtest import RunningLab, fresh_name, running
from tests.lab.tracetest import (
    SLOW,
    Record,
    address,
    chain_counts,
    connect,
    expected_hops,
    hops_of,
    programmed_chains,
    tracing,
    tracked_backends,
)

DUAL = (AddressFamily.IPV4, AddressFamily.IPV6)
CONNECTIONS = 12
LABS = [
    (ProxyMode.IPTABLES, Overlay.NONE),
    (ProxyMode.NFTABLES, Overlay.NONE),
    (ProxyMode.NFTABLES, Overlay.VXLAN),
]


@pytest.fixture(scope="module", params=LABS, ids=lambda p: f"{p[0].value}-{p[1].value}")
def lab(request: pytest.FixtureRequest, quiet_manifests: Path) -> Iterator[RunningLab]:
    mode, overlay = request.param
    spec = LabSpec(name=fresh_name(), proxy_mode=mode, overlay=overlay, families=DUAL, manifests=str(quiet_manifests))
    with running(spec) as found:
        yield found


def check_path(lab: RunningLab, path: Record, client: Pod, family: AddressFamily) -> Pod:
    """Asserts on all that a path says of a healthy connection; returns the backend."""
    service = address(lab.service("my-llama-svc").cluster_ips, family)
    backend = next(p for p in lab.pods("my-llama-finetuned") if p.metadata.name == path["backend"]["pod"])
    ip = address(backend.ips, family)
    own = address(client.ips, family)
    assert path["verdict"] == "forwarded" and path["drop"] is None
    assert {finding["check"] for finding in path["findings"]} <= SLOW
    assert path["established"] is True and path["attempts"] == 1 and path["retransmits"] == 0
    caller, called = path["flow"]["client"], path["flow"]["service"]
    assert (caller["namespace"], caller["pod"], caller["node"]) == (
        "default",
        client.metadata.name,
        client.spec.node_name,
    )
    assert (caller["ip"], caller["workload"]) == (own, "chatbot-ui")
    assert called == {"namespace": "default", "name": "my-llama-svc", "port": 80, "port_name": "http", "ip": service}
    assert (path["backend"]["ip"], path["backend"]["port"], path["backend"]["node"]) == (
        ip,
        8080,
        backend.spec.node_name,
    )
    assert hops_of(path) == expected_hops(lab, client, backend, service, family)
    assert {h["src"] for h in path["hops"]} == {address_text(own, caller["port"])}
    check_nat(lab, path, client, service, ip, family)
    check_times(path)
    tunnels = [(h["device"], h["tunnel"]) for h in path["hops"] if h["tunnel"]]
    crossing = client.spec.node_name != backend.spec.node_name and lab.record.spec.overlay is Overlay.VXLAN
    assert [device for device, _ in tunnels] == (["eth0", "eth0"] if crossing else [])
    if crossing:
        ends = {n.metadata.name: address(n.ips, family) for n in lab.snapshot.nodes}
        here, there = ends[client.spec.node_name], ends[backend.spec.node_name]
        assert all(
            t.startswith(f"UDP {here}:" if family is AddressFamily.IPV4 else f"UDP [{here}]:") for _, t in tunnels
        )
        assert all(t.endswith(f"→ {address_text(there, 8472)}") for _, t in tunnels)
    return backend


def check_nat(lab: RunningLab, path: Record, client: Pod, service: str, ip: str, family: AddressFamily) -> None:
    nat = path["nat"]
    assert (nat["mode"], nat["certainty"], nat["masqueraded"]) == (lab.record.spec.proxy_mode.value, "derived", False)
    assert (nat["before"], nat["after"]) == (address_text(service, 80), address_text(ip, 8080))
    assert nat["hop"] == 1  # after the node has received it, before it is sent on
    assert path["hops"][1]["dst"] == nat["before"] and path["hops"][2]["dst"] == nat["after"]
    service_chain, endpoint_chains = programmed_chains(lab, client.spec.node_name, family, service)
    # In nftables mode several endpoints are a map in the Service's chain, and have no chains of their own.
    assert ip in endpoint_chains or lab.record.spec.proxy_mode is ProxyMode.NFTABLES
    assert (nat["service_chain"], nat["endpoint_chain"]) == (service_chain, endpoint_chains.get(ip))


def check_times(path: Record) -> None:
    times = [h["t_ns"] for h in path["hops"]]
    assert times == sorted(times) and times[-1] - times[0] < 1_000_000_000
    assert {h["t_error_ns"] for h in path["hops"]} == {0}  # one kernel, one clock
    assert times[-1] - times[0] < path["handshake_ns"] < 1_000_000_000


def slow_machine(summary: Record) -> bool:
    """Whether a backend was found slow, which on a machine that is busy with other things may well be so."""
    checks = {finding["check"] for finding in summary["findings"]}
    assert checks <= SLOW
    return bool(checks)


@pytest.mark.parametrize("family", DUAL, ids=lambda f: f.value)
def test_watched_connections_are_traced_as_the_rules_counted_them(lab: RunningLab, family: AddressFamily) -> None:
    client = lab.pods("chatbot-ui")[0]
    node = client.spec.node_name
    service = address(lab.service("my-llama-svc").cluster_ips, family)
    with tracing(
        "svc/my-llama-svc",
        "--lab",
        lab.name,
        "--timeout",
        "300s",
        "--from-pod",
        client.metadata.name,
        "--budget",
        "100",
    ) as trace:
        wait_until_watching(trace, lab, client, service)
        before = chain_counts(lab, node, family)
        ports = set(connect(lab, client, service, 80, CONNECTIONS))
        seen: dict[int, Record] = {}
        while ports - seen.keys():
            path = trace.until(lambda p: p["flow"]["client"]["port"] in ports)
            seen[path["flow"]["client"]["port"]] = path
        counted = chain_counts(lab, node, family) - before
        status = trace.stop()
        assert status == (1 if slow_machine(trace.summary) else 0), trace.errors
    by_pod = {port: check_path(lab, path, client, family) for port, path in seen.items()}
    backends = {port: address(pod.ips, family) for port, pod in by_pod.items()}
    assert backends == tracked_backends(lab, node, family, service, ports)
    if lab.record.spec.proxy_mode is ProxyMode.IPTABLES:
        assert Counter(path["nat"]["endpoint_chain"] for path in seen.values()) == counted
    assert all(path["response_ns"] > 0 for path in seen.values())
    events = trace.summary["events"]
    assert events["emitted"] == events["received"] + events["lost"] and events["lost"] == 0
    shares = {b["backend"]["pod"]: b["connections"] for b in trace.summary["backends"]}
    assert Counter(shares) == Counter(p["backend"]["pod"] for p in trace.paths)


def wait_until_watching(trace: object, lab: RunningLab, client: Pod, service: str) -> None:
    """Connects until a connection was seen whole: connections that began before all nodes were watched are left out."""
    from queue import Empty

    from tests.lab.tracetest import RunningTrace

    assert isinstance(trace, RunningTrace)
    for _ in range(60):
        connect(lab, client, service, 80, 1)
        try:
            if trace._next(0.2) is not None:
                return
        except Empty:
            continue
    raise AssertionError(f"nothing was seen: {trace.errors}")


@pytest.mark.parametrize("family", DUAL, ids=lambda f: f.value)
def test_probe_makes_the_traffic_that_is_traced(lab: RunningLab, family: AddressFamily) -> None:
    client = lab.pods("chatbot-ui")[-1]
    service = address(lab.service("my-llama-svc").cluster_ips, family)
    target = "svc/my-llama-svc" if family is AddressFamily.IPV4 else f"[{service}]:80"
    arguments = ("--from-pod", f"pod/{client.metadata.name}", "--check", "--check-count", "2", "--path", "/healthz")
    with tracing(target, "--lab", lab.name, *arguments) as trace:
        check_path(lab, trace.until(lambda _: True), client, family)
        check_path(lab, trace.until(lambda _: True), client, family)
        # It ends by itself once the probes' packets have settled.
        status = trace.stop(sign=None)
        assert status == (1 if slow_machine(trace.summary) else 0), trace.errors
    assert len(trace.paths) == 2 and trace.summary["half_seen"] == 0
    assert trace.summary["events"]["lost"] == 0
    probes = [line for line in trace.errors if line.startswith("check ")]
    assert len(probes) == 2 and all(f"http://{address_text(service, 80)}/healthz: http 200" in line for line in probes)
