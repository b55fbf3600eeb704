"""Real connections through the lab, against what its rules count."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import AddressFamily, LabSpec, Overlay, ProxyMode
from kubectl_genainet.proxy.names import iptables_endpoint_chain
from tests.lab.labtest import RunningLab, fresh_name, running

DUAL = (AddressFamily.IPV4, AddressFamily.IPV6)
SPECS = [
    pytest.param((mode, overlay, families), id=f"{mode.value}-{overlay.value}-{len(families)}")
    for mode in ProxyMode
    for overlay in Overlay
    for families in ((AddressFamily.IPV4,), DUAL)
]
REQUESTS = 12


@pytest.fixture(scope="module", params=SPECS)
def lab(request: pytest.FixtureRequest, quiet_manifests: Path) -> Iterator[RunningLab]:
    mode, overlay, families = request.param
    spec = LabSpec(
        name=fresh_name(), proxy_mode=mode, overlay=overlay, families=families, manifests=str(quiet_manifests)
    )
    with running(spec) as found:
        yield found


def families_of(lab: RunningLab) -> tuple[AddressFamily, ...]:
    return lab.record.spec.families


def address(ips: tuple[str, ...], family: AddressFamily) -> str:
    return next(ip for ip in ips if (":" in ip) == (family is AddressFamily.IPV6))


def test_cluster_ip_reaches_every_backend_and_the_rules_count_each_connection(lab: RunningLab) -> None:
    client = lab.pods("chatbot-ui")[0]
    backends = lab.pods("my-llama-finetuned")
    for family in families_of(lab):
        ip = address(lab.service("my-llama-svc").cluster_ips, family)
        before = endpoint_counts(lab, client.spec.node_name, family)
        answers = Counter(lab.get(client, ip, 80) for _ in range(REQUESTS))
        assert {status for status, _ in answers} == {200}
        by_pod = {pod: count for (_, pod), count in answers.items()}
        counted = endpoint_counts(lab, client.spec.node_name, family) - before
        expected = {f"default/{pod.metadata.name}": address(pod.ips, family) for pod in backends}
        assert set(by_pod) <= set(expected)
        assert {expected[pod]: count for pod, count in by_pod.items()} == dict(counted)


def endpoint_counts(lab: RunningLab, node: str, family: AddressFamily) -> Counter[str]:
    """Connections to each endpoint of my-llama-svc, by address: counters of the DNAT rules, or conntrack's entries."""
    counts: Counter[str] = Counter()
    if lab.record.spec.proxy_mode is ProxyMode.IPTABLES:
        text = lab.node_output(
            node, "iptables-save" if family is AddressFamily.IPV4 else "ip6tables-save", "-c", "-t", "nat"
        )
        for pod in lab.pods("my-llama-finetuned"):
            ip = address(pod.ips, family)
            chain = iptables_endpoint_chain(
                "default/my-llama-svc:http", "tcp", f"[{ip}]:8080" if ":" in ip else f"{ip}:8080"
            )
            found = re.search(rf"\[(\d+):\d+\] -A {chain} .*-j DNAT", text)
            assert found is not None
            counts[ip] = int(found[1])
        return +counts
    service = address(lab.service("my-llama-svc").cluster_ips, family)
    text = lab.node_output(node, "conntrack", "-L", "-f", family.value.lower(), "-p", "tcp", "--orig-dst", service)
    counts.update(line.split("src=")[2].split()[0] for line in text.splitlines())
    return counts


def test_policy_admits_the_client_it_names_and_drops_the_other(lab: RunningLab) -> None:
    chatbot, rag = lab.pods("chatbot-ui")[0], lab.pods("rag-app")[0]
    qdrant = lab.pods("qdrant")[0]
    for family in families_of(lab):
        ip = address(lab.service("qdrant").cluster_ips, family)
        assert lab.get(rag, ip, 6333) == (200, "default/qdrant-0")
        again = lab.tcp_ext(chatbot, "TCPSynRetrans")
        with pytest.raises(TimeoutError):
            lab.get(chatbot, ip, 6333, timeout=0.5)
        syns = 1 + lab.tcp_ext(chatbot, "TCPSynRetrans") - again  # a busy machine ends the attempt later
        save = "iptables-save" if family is AddressFamily.IPV4 else "ip6tables-save"
        text = lab.node_output(qdrant.spec.node_name, save, "-c", "-t", "filter")
        drops = re.findall(r'\[(\d+):\d+\] -A LAB-POD-\S+ .*"(genainet lab: pod \S+ is isolated[^"]*)" -j DROP', text)
        counted = {reason: int(count) for count, reason in drops}
        reason = (
            "genainet lab: pod default/qdrant-0 is isolated (ingress) by default/qdrant-ingress-policy: no rule admits"
        )
        assert counted[reason] == syns


def test_names_of_services_are_resolved_through_kube_dns(lab: RunningLab) -> None:
    script = "getent ahostsv4 rag-app; getent ahostsv4 models.example.com"
    command = [sys.executable, "-m", "kubectl_genainet", "lab", "exec", "--name", lab.name, "deploy/chatbot-ui", "--"]
    output = subprocess.run([*command, "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    found = {line.split()[0] for line in output.splitlines()}
    assert found == {address(lab.service("rag-app").cluster_ips, AddressFamily.IPV4), "203.0.113.10"}


def test_node_port_answers_on_every_node_from_outside(lab: RunningLab) -> None:
    for family in families_of(lab):
        for node in lab.snapshot.nodes:
            ip = address(node.ips, family)
            with netns.inside(f"gnlab-{lab.name}-fabric"):
                sock = socket.create_connection((ip, 30080), timeout=3)
            with sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def test_large_answers_fit_the_path(lab: RunningLab) -> None:
    client = lab.pods("chatbot-ui")[0]
    for backend in lab.pods("my-llama-finetuned"):
        for ip in backend.ips:
            assert lab.get(client, ip, 8080, path="/") == (200, f"default/{backend.metadata.name}")


def test_overlay_packets_cross_the_underlay_encapsulated(lab: RunningLab) -> None:
    if lab.record.spec.overlay is not Overlay.VXLAN:
        pytest.skip("native routing")
    client = lab.pods("chatbot-ui")[0]
    backend = next(p for p in lab.pods("my-llama-finetuned") if p.spec.node_name != client.spec.node_name)
    before = device_packets(lab, backend.spec.node_name, "flannel.1")
    lab.get(client, backend.ips[0], 8080)
    assert device_packets(lab, backend.spec.node_name, "flannel.1") - before >= 4


def device_packets(lab: RunningLab, node: str, device: str) -> int:
    line = next(s for s in lab.node_output(node, "cat", "/proc/net/dev").splitlines() if s.strip().startswith(device))
    return int(line.split()[2])


def test_snapshot_describes_what_runs(lab: RunningLab) -> None:
    snapshot = lab.snapshot
    for pod in snapshot.pods:
        with netns.inside(lab.pod_netns(pod)):
            shown = subprocess.run(
                ["ip", "-o", "addr", "show", "eth0"], capture_output=True, text=True, check=True
            ).stdout
        assert all(f" {ip}/" in shown for ip in pod.ips)
        assert pod.ready
    port = lab.service("my-llama-svc").spec.ports[0]
    backends = snapshot.backends(lab.service("my-llama-svc"), port)
    assert {b.ip for b in backends} == {ip for p in lab.pods("my-llama-finetuned") for ip in p.ips}
    assert all(b.port == 8080 and b.ready for b in backends)
