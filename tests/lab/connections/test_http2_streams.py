"""Streams of clear HTTP/2 connections (`trace --http`) against what a real server counted of each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.model.kube import Pod
from tests.lab.labtest import RunningLab, fresh_name, running
from tests.lab.tracetest import Record, RunningTrace, tracing

# Counts the streams of each connection, and tells them when it ends.
SERVER = """
import asyncio, json, h2.config, h2.connection, h2.events
async def serve(reader, writer):
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    http.initiate_connection()
    writer.write(http.data_to_send())
    streams, last = 0, 0
    while data := await reader.read(65536):
        for event in http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                streams, last = streams + 1, event.stream_id
            if isinstance(event, h2.events.DataReceived):
                http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.StreamEnded):
                http.send_headers(event.stream_id, [(':status', '200')])
                http.send_data(event.stream_id, b'token', end_stream=True)
        writer.write(http.data_to_send())
        await writer.drain()
    print(json.dumps([*writer.get_extra_info('peername')[:2], streams, last]), flush=True)
    writer.close()
async def main():
    await (await asyncio.start_server(serve, '0.0.0.0', 8080)).serve_forever()
asyncio.run(main())
"""

# Opens streams as it is told: [number at once, bytes of a body, bytes of a field, times, pause in s], on one connection from a
# port of its own. Waits for a line on its input where it is told "wait".
CLIENT = """
import json, socket, sys, time, h2.config, h2.connection, h2.events
host, own, plan = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
sock.bind(('', own))
sock.connect((host, 80))
http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
http.initiate_connection()
fields = [(':method', 'POST'), (':scheme', 'http'), (':authority', 'llm'), (':path', '/v1/chat')]
def ask(at_once, body, field, number):
    streams = set()
    for i in range(at_once):
        stream = http.get_next_available_stream_id()
        http.send_headers(stream, [*fields, ('x-field', f'{number}.{i}' + 'z' * field)], end_stream=not body)
        if body:
            http.send_data(stream, b'x' * body, end_stream=True)
        streams.add(stream)
    sock.sendall(http.data_to_send())
    while streams:
        data = sock.recv(65536)
        assert data
        for event in http.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                streams.discard(event.stream_id)
        sock.sendall(http.data_to_send())
for step in plan:
    if step == 'wait':
        print('waits', flush=True)
        sys.stdin.readline()
        continue
    *how, times, pause = step
    for number in range(times):
        ask(*how, number)
        time.sleep(pause)
http.close_connection()
sock.sendall(http.data_to_send())
sock.close()
"""
MANY = [10, 0, 10, 100, 0.03]  # 1,000 streams of few bytes
STEADY = [1, 100, 10, 3, 0.02]  # 3, one after the other
AT_ONCE = [8, 0, 10, 5, 0.05]  # 40, eight in a segment
LONG = [1, 50, 30_000, 4, 0.05]  # 4, whose fields take several segments and a CONTINUATION
BODIES = [3, 9_000, 10, 5, 0.05]  # 15, whose HEADERS come after bodies within a segment
ONE = [1, 0, 10, 1, 0.0]
OWN = 21_000


def _objects() -> Iterator[dict[str, Any]]:
    for name, replicas in (("llm", 3), ("chat", 2)):
        labels = {"app.kubernetes.io/name": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
        yield {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llm", "namespace": "default"},
        "spec": {"selector": {"app.kubernetes.io/name": "llm"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


Truth = dict[tuple[str, int], list[tuple[int, int]]]  # (streams, last number) of each connection of a client's end


@dataclass
class Served:
    lab: RunningLab
    ip: str
    logs: list[Path]

    @property
    def truth(self) -> Truth:
        found: Truth = defaultdict(list)
        for log in self.logs:
            for ip, port, streams, last in map(json.loads, log.read_text().splitlines()):
                found[ip, port].append((streams, last))
        return found

    def client(self, pod: Pod, own: int, *plan: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CLIENT, self.ip, str(own), json.dumps(plan)]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.lab.pod_netns(pod), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, pod: Pod, own: int, *plan: object) -> None:
        process = self.client(pod, own, *plan)
        process.communicate(timeout=120)
        assert process.returncode == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("http2")
    for number, obj in enumerate(_objects()):
        (folder / f"{number}.json").write_text(json.dumps(obj))
    with running(LabSpec(name=fresh_name(), manifests=str(folder))) as lab, contextlib.ExitStack() as stack:
        logs = []
        for pod in lab.pods("llm"):
            logs.append(tmp_path_factory.mktemp("log") / pod.metadata.name)
            command = ["ip", "netns", "exec", lab.pod_netns(pod), sys.executable, "-c", SERVER]
            process = stack.enter_context(subprocess.Popen(command, stdout=stack.enter_context(logs[-1].open("w"))))
            stack.callback(process.terminate)
        _wait_for_listeners(lab)
        yield Served(lab, lab.service("llm").spec.cluster_ip, logs)


def _wait_for_listeners(lab: RunningLab) -> None:
    deadline = time.monotonic() + 60
    for pod in lab.pods("llm"):
        command = ["ip", "netns", "exec", lab.pod_netns(pod), "ss", "-Hltn", "sport", "=", ":8080"]
        while not subprocess.run(command, capture_output=True, check=True).stdout:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def by_client(paths: list[Record]) -> dict[tuple[str, int], list[Record]]:
    found: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for path in sorted(paths, key=lambda path: str(path["time"])):
        found[path["flow"]["client"]["ip"], path["flow"]["client"]["port"]].append(path)
    return found


def _wait_until_watched(trace: RunningTrace, served: Served, client: Pod) -> None:
    """Until a connection was seen whole."""
    for own in range(OWN + 1, OWN + 200):
        served.run(client, own, ONE)
        with contextlib.suppress(AssertionError):
            trace.until(lambda path: True, timeout=0.5)
            return
    raise AssertionError(f"nothing was seen: {trace.errors}")


def test_streams_are_those_that_the_server_counted(served: Served) -> None:
    lab, (first, second) = served.lab, served.lab.pods("chat")
    older = served.client(first, OWN, [5, 0, 10, 60, 0.0], "wait", [1, 100, 10, 20, 0.02])
    assert older.stdout is not None and older.stdout.readline()
    with tracing("svc/llm", "--lab", lab.name, "--http", "--timeout", "300s") as trace:
        _wait_until_watched(trace, served, second)
        plans = ([MANY, AT_ONCE], [BODIES, STEADY], [LONG, AT_ONCE])
        kept = [served.client(first, OWN + 2000 + n, *plan) for n, plan in enumerate(plans)]
        older.communicate("\n", timeout=60)
        again = OWN + 3000
        served.run(second, again, AT_ONCE)
        served.run(second, again, ONE)
        for process in kept:
            process.communicate(timeout=120)
        trace.until(lambda path: path["flow"]["client"]["port"] == OWN + 2000)
        trace.stop()
    truth, told = served.truth, by_client(trace.paths)
    client, other = first.ips[0], second.ips[0]
    assert [truth[client, OWN + 2000 + n][0][0] for n in range(3)] == [1040, 18, 44]
    for end in [*((client, OWN + 2000 + n) for n in range(3)), (other, again)]:
        counts = [path["http2"] for path in told[end]]
        assert sorted((c["streams"], c["last"]) for c in counts) == sorted(truth[end]), end
    assert [path["http2"]["certainty"] for path in told[client, OWN + 2000]] == ["observed"]
    assert sorted(truth[other, again]) == [(1, 1), (40, 79)]
    (path,) = told[client, OWN]
    assert truth[client, OWN] == [(320, path["http2"]["last"])]
    assert (path["http2"]["streams"], path["http2"]["certainty"]) == (20, "derived")
    assert path["http"] is None
    _check_finding(trace.summary, told[client, OWN + 2000][0])


def _check_finding(summary: Record, kept: Record) -> None:
    """Other connections carry more bytes: what is named was found by streams."""
    (finding,) = [f for f in summary["findings"] if f["check"] == "pinned-connection"]
    pod, streams = kept["backend"]["pod"], kept["http2"]["streams"]
    assert "of the requests to svc/llm" in finding["title"] and f"bound to {pod}," in finding["title"]
    assert any("HTTP/2 streams by backend" in e["statement"] and pod in e["statement"] for e in finding["evidence"])
    assert kept["stream"]["request_bytes"] < 100 * streams
