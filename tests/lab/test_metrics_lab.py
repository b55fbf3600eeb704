"""An agent with `--metrics` and `--otlp-endpoint` on a node of the lab, while real packets are dropped there."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubectl_genainet.agent.dns.once import HELD_NS
from kubectl_genainet.context.identities import identities_of
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs.start import netns_files
from kubectl_genainet.lab.spec import AddressFamily, LabSpec
from kubectl_genainet.lab.state import LabFolder
from kubectl_genainet.model.kube import Pod
from tests.lab.labtest import RunningLab, broken, fresh_name, running
from tests.otlptest import Collector, collecting

ATTACHED_S = 60.0
# A port is free where nobody else has the address: one that was seen to be free may be taken by the time it is used.
METRICS = (f"127.{100 + (os.getpid() >> 16) % 100}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}", 9913)


@dataclass
class Scraped:
    """The agent of the node that the backend is on."""

    lab: RunningLab
    backend: Pod
    process: subprocess.Popen[bytes]
    collector: Collector

    def get(self, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection(*METRICS, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        try:
            status, text = self.get()
        except ConnectionError:
            return []
        assert status == 200
        families = text_string_to_metric_families(text)
        return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]

    def total(self, name: str, **labels: str) -> float:
        return sum(value for found, value in self.samples(name) if labels.items() <= found.items())

    def wait(self, wanted: Callable[[], object], what: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process.poll() is None
            if wanted():
                return
            time.sleep(0.2)
        pytest.fail(f"{what}: not within {timeout} s\n{self.get()[1]}")


@pytest.fixture(scope="module")
def scraped(quiet_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("metrics")
    with running(LabSpec(name=fresh_name(), manifests=str(quiet_manifests))) as lab, collecting() as collector:
        backend = lab.pods("my-llama-finetuned")[0]
        node = backend.spec.node_name
        names = folder / "identities.json"
        names.write_bytes(msgspec.json.encode(identities_of(lab.snapshot, time.time())))
        command = [
            sys.executable,
            "-m",
            "kubectl_genainet.agent.main",
            "serve",
            "--node",
            node,
            "--socket",
            str(folder / "agent.sock"),
            "--host-netns",
            f"/run/netns/{lab.record.nodes[node]}",
            "--metrics",
            "{}:{}".format(*METRICS),
            "--identities",
            str(names),
            "--otlp-endpoint",
            f"http://127.0.0.1:{collector.server_port}",
        ]
        environment = os.environ | {"GENAINET_NETNS_FILES": str(netns_files(LabFolder(lab.name)))}
        process = subprocess.Popen(command, env=environment)
        try:
            found = Scraped(lab, backend, process, collector)
            found.wait(lambda: found.total("genainet_session_up") == 1, "the probes are attached", ATTACHED_S)
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def try_connect(scraped: Scraped, seconds: float) -> bool:
    (client, *_) = scraped.lab.pods("chatbot-ui")
    try:
        status, _ = scraped.lab.get(client, scraped.backend.ips[0], 8080, timeout=seconds)
    except TimeoutError:
        return False
    return status == 200


def flows(collector: Collector, name: str) -> list[dict[str, Any]]:
    found = []
    for _, _, body in list(collector.requests):
        for record in json.loads(body)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
            if record["eventName"] == name:
                found.append({a["key"]: next(iter(a["value"].values())) for a in record["attributes"]})
    return found


def test_a_connection_is_counted_for_its_service_and_backend(scraped: Scraped) -> None:
    labels = {"service": "default/my-llama-svc", "backend": f"{scraped.backend.ips[0]}:8080"}
    before = scraped.total("genainet_connections_total", **labels)
    for _ in range(3):
        assert try_connect(scraped, 5)
    scraped.wait(lambda: scraped.total("genainet_connections_total", **labels) == before + 3, "three connections")


def test_a_drop_by_a_policy_is_counted_with_reason_hook_and_workload_and_sent_to_the_collector(
    scraped: Scraped,
) -> None:
    labels = {"reason": "NETFILTER_DROP", "hook": "FORWARD", "namespace": "default", "workload": "my-llama-finetuned"}
    before = scraped.total("genainet_drops_total", **labels)
    with broken(scraped.lab, "policy-drop"):
        assert not try_connect(scraped, 1.5)
        scraped.wait(lambda: scraped.total("genainet_drops_total", **labels) > before, "the drop")
        scraped.wait(lambda: flows(scraped.collector, "genainet.drop"), "the drop at the collector")
    (client, *_) = scraped.lab.pods("chatbot-ui")
    drop = next(
        f for f in flows(scraped.collector, "genainet.drop") if f["destination.address"] == scraped.backend.ips[0]
    )
    assert (drop["source.address"], drop["destination.port"]) == (client.ips[0], "8080")
    assert (drop["genainet.drop.reason"], drop["genainet.source.workload"]) == ("NETFILTER_DROP", "chatbot-ui")
    assert scraped.total("genainet_otlp_sent_records_total") > 0


def test_the_time_of_a_dns_query_is_counted_for_who_asked(scraped: Scraped) -> None:
    labels = {"namespace": "default", "workload": "my-llama-finetuned", "rcode": "NOERROR"}
    service = scraped.lab.snapshot.service("kube-system", "kube-dns")
    assert service is not None
    with netns.inside(scraped.lab.pod_netns(scraped.backend)):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(5)
        query = dns.message.make_query("my-llama-svc.default.svc.cluster.local.", "A")
        sock.sendto(query.to_wire(), (service.cluster_ips[0], 53))
        began = time.monotonic()
        assert dns.message.from_wire(sock.recv(4096)).answer
        took = time.monotonic() - began
    scraped.wait(lambda: scraped.total("genainet_dns_duration_seconds_count", **labels) == 1, "the exchange")
    assert 0 < scraped.total("genainet_dns_duration_seconds_sum", **labels) < took + 0.5


def test_a_query_that_the_node_masquerades_is_counted_once(scraped: Scraped) -> None:
    """It leaves the node from another address and port, as a query of the node's own would."""
    labels = {"namespace": "default", "workload": "my-llama-finetuned"}
    name = "genainet_dns_duration_seconds_count"
    before, nodes_own = scraped.total(name, **labels), scraped.total(name, namespace="none")
    fabric = AddressFamily.IPV4.fabric_ip
    with netns.inside(scraped.lab.pod_netns(scraped.backend)):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(5)
        for number in range(5):
            sock.sendto(dns.message.make_query(f"model{number}.example.com.", "A").to_wire(), (fabric, 53))
            assert dns.message.from_wire(sock.recv(4096)).answer
    scraped.wait(lambda: scraped.total(name, **labels) == before + 5, "the exchanges")
    time.sleep(HELD_NS / 1e9 + 1.5)  # what is held back would have come by now
    assert scraped.total(name, **labels) == before + 5
    assert scraped.total(name, namespace="none") == nodes_own


def test_the_listener_shows_the_metrics_and_nothing_else(scraped: Scraped) -> None:
    assert scraped.get("/v1/node")[0] == 404
    assert scraped.get("/healthz")[0] == 404
    assert scraped.get("/metrics", "POST")[0] == 405
    results: list[bytes] = []

    def hostile(data: bytes) -> None:
        with socket.create_connection(METRICS, timeout=15) as sock:
            sock.sendall(data)
            results.append(sock.recv(200))

    threads = [threading.Thread(target=hostile, args=(d,)) for d in (b"\0\xff\r\n\r\n", b"GET /" + b"a" * 100_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(b" 400 " in r or b" 431 " in r for r in results), results
    assert scraped.get()[0] == 200


def test_the_agents_own_cost_is_measured(scraped: Scraped) -> None:
    cpu = scraped.total("genainet_agent_cpu_seconds_total")
    memory = {labels["process"]: value for labels, value in scraped.samples("genainet_agent_memory_bytes")}
    assert cpu > 0 and memory["server"] > 10 << 20 and memory["session"] > 10 << 20 and memory["traces"] == 0
    time.sleep(1.0)
    assert scraped.total("genainet_agent_cpu_seconds_total") >= cpu


def test_a_session_that_is_killed_is_started_again_and_its_counters_go_on(scraped: Scraped) -> None:
    connections, cpu = scraped.total("genainet_connections_total"), scraped.total("genainet_agent_cpu_seconds_total")
    children = Path(f"/proc/{scraped.process.pid}/task/{scraped.process.pid}/children").read_text().split()
    (worker,) = [c for c in children if b"session.worker" in Path(f"/proc/{c}/cmdline").read_bytes()]
    os.kill(int(worker), signal.SIGKILL)
    scraped.wait(lambda: scraped.total("genainet_session_restarts_total", reason="died") == 1, "the end is noticed")
    scraped.wait(lambda: scraped.total("genainet_session_up") == 1, "it is up again", ATTACHED_S)
    assert scraped.total("genainet_connections_total") >= connections
    assert scraped.total("genainet_agent_cpu_seconds_total") >= cpu
