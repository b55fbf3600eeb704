#!/usr/bin/env python3
"""Judges `trace` by ground truth: random connections in a lab of its own, told by their clients and servers.

    scripts/truth.py --connections 2000 --seed 1 [--proxy-mode nftables] [--overlay vxlan] [--ip-family dual]

Clients in pods open TCP connections and send datagrams (all with one payload) to Services of several types; some have no
listener. Each client writes what came of each; the servers answer with their pod's name. Of every connection the trace
must say that outcome and that backend, or that it does not know. Exit status 1 below 99.9 % right. Needs root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubectl_genainet.lab.state import LabRecord, lab_record, lab_snapshot
from kubectl_genainet.model.cluster import canonical_ip

TCP, UDP, CLOSED = 9100, 9101, 9199
WANTED = 0.999
PACE_S = 0.02
WARM_UP_S = 12  # until all agents watch, at the usual load; where it takes longer the trace is waited for

SERVER = """
import asyncio, socket, sys
name, tcp, udp = sys.argv[1].encode(), int(sys.argv[2]), int(sys.argv[3])
async def serve(reader, writer):
    await reader.read(100); writer.write(name); await writer.drain(); writer.close()
class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, peer): self.transport.sendto(name, peer)
async def main():
    loop = asyncio.get_running_loop()
    for family, any_ in ((socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::')):
        await asyncio.start_server(serve, any_, tcp, family=family, backlog=1024)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6: datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        datagrams.setblocking(False); datagrams.bind((any_, udp))
        await loop.create_datagram_endpoint(Datagrams, sock=datagrams)
    await asyncio.sleep(3600)
asyncio.run(main())
"""

CLIENT = """
import json, random, socket, sys, time
targets, count, seed, pace = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rnd = random.Random(seed)
for _ in range(count):
    protocol, host, port = rnd.choice(targets)
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if protocol == 'TCP' else socket.SOCK_DGRAM); s.settimeout(2)
    backend, outcome = '', 'answered'
    try:
        s.connect((host, port)); s.send(b'the same'); backend = s.recv(100).decode()
    except ConnectionRefusedError: outcome = 'refused'
    except TimeoutError: outcome = 'unanswered'
    except OSError as error: outcome = type(error).__name__
    ip, number = s.getsockname()[:2]
    print(json.dumps([protocol, ip, number, host, outcome, backend]), flush=True); s.close(); time.sleep(pace)
"""


def deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    containers = [{"name": "c", "image": "x"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [
        {"name": "t", "port": 80, "targetPort": TCP, "protocol": "TCP"},
        {"name": "u", "port": 81, "targetPort": UDP, "protocol": "UDP"},
        {"name": "closed", "port": 82, "targetPort": CLOSED, "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "echo"}, "ipFamilyPolicy": "PreferDualStack", "ports": ports, **spec},
    }


OBJECTS = [
    deployment("echo", 5),
    deployment("client", 3),
    service("echo"),
    service("affine", sessionAffinity="ClientIP"),
    service("outside", type="NodePort"),
]


@dataclass
class Score:
    right: int = 0
    unknown: int = 0
    missing: int = 0
    wrong: int = 0


def genainet(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "kubectl_genainet", *arguments], check=True, stdout=subprocess.DEVNULL)


def inside(namespace: str, code: str, *arguments: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class Told:
    """What a running trace tells, read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._records: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._records.append(json.loads(line))

    def nodes(self) -> set[str]:
        """The nodes of which anything was told."""
        return {hop["node"] for r in list(self._records) if r["kind"] == "path" for hop in r["hops"]}

    def paths(self) -> list[dict[str, Any]]:
        """All paths, once the trace has ended."""
        self._reader.join()
        self.process.wait()
        assert self.process.stdout is not None and self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return [r for r in self._records if r["kind"] == "path"]


def warm_up(trace: Told, ways: list[tuple[str, str, int]], namespaces: list[str], nodes: set[str]) -> None:
    """Connects until a path was told of every node: what comes then is seen whole."""
    deadline = time.monotonic() + 60
    while nodes - trace.nodes() and time.monotonic() < deadline and trace.process.poll() is None:
        for number, namespace in enumerate(namespaces):
            inside(namespace, CLIENT, json.dumps(ways), "5", str(number), "0.1").communicate()


def targets_of(record: LabRecord) -> dict[str, list[tuple[str, str, int]]]:
    """By Service: (protocol, address, port) that its clients choose from, node ports of all nodes among them."""
    snapshot = lab_snapshot(record.spec.name)
    found: dict[str, list[tuple[str, str, int]]] = {}
    for name in ("echo", "affine", "outside"):
        one = snapshot.service("default", name)
        assert one is not None
        ways = [(p.protocol, ip, p.port) for p in one.spec.ports for ip in one.cluster_ips]
        nodes = [ip for node in snapshot.nodes for ip in node.ips]
        ways += [(p.protocol, ip, p.node_port) for p in one.spec.ports if p.node_port for ip in nodes]
        found[name] = ways
    return found


def asked_ip(path: dict[str, Any]) -> str:
    """The address that the client sent to."""
    return canonical_ip(path["hops"][0]["dst"].rpartition(":")[0].strip("[]")) if path["hops"] else ""


def judge(told: list[dict[str, Any]], truth: list[list[Any]]) -> tuple[Score, list[str]]:
    """Each true connection against the path of its tuple as its client had it: a port is used again for another address, and
    for the same one later."""
    paths: dict[tuple[str, str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for one in sorted(told, key=lambda p: p.get("t_ns") or 0):
        client = one["flow"]["client"]
        paths[one["flow"]["protocol"], canonical_ip(client["ip"]), client["port"], asked_ip(one)].append(one)
    score, errors = Score(), []
    for protocol, ip, port, host, outcome, backend in truth:
        found = paths[protocol, canonical_ip(ip), port, canonical_ip(host)]
        again = protocol == "UDP" and len(found) == 1  # a port used again for the same address is the same flow
        path = found[0] if again else found.pop(0) if found else None
        if path is None:
            score.missing += 1
            errors.append(f"{protocol} {ip}:{port} to {host}: {outcome} {backend}; no path")
            continue
        said = (path["outcome"], (path["backend"] or {}).get("pod") or "")
        if said[0] == "unknown":
            score.unknown += 1
        elif said[0] == outcome and (not backend or said[1] == backend):
            score.right += 1
        else:
            score.wrong += 1
            errors.append(f"{protocol} {ip}:{port} to {host}: {outcome} {backend}; told {' '.join(said)}")
    return score, errors


def run(record: LabRecord, connections: int, seed: int, bundles: str = "") -> tuple[Score, list[str]]:
    """Judges so many random connections; the traces are recorded in the folder `bundles`, if one is named."""
    snapshot = lab_snapshot(record.spec.name)
    pods = {app: [p for p in snapshot.pods if p.metadata.labels.get("app") == app] for app in ("echo", "client")}
    spaces = {p.metadata.name: record.pods[f"default/{p.metadata.name}"] for both in pods.values() for p in both}
    servers = [inside(spaces[p.metadata.name], SERVER, p.metadata.name, str(TCP), str(UDP)) for p in pods["echo"]]
    score, errors = Score(), []
    try:
        for name, ways in targets_of(record).items():
            each = max(1, connections // 3 // len(pods["client"]))
            lasts = each * (PACE_S + 0.01) * 2 + 20 + WARM_UP_S
            options = ["--lab", record.spec.name, "--timeout", f"{lasts:.0f}s", "--slow", "0s", "--budget", "400"]
            if bundles:
                options += ["--record", str(Path(bundles, f"{name}.bundle"))]
            command = [sys.executable, "-m", "kubectl_genainet", "trace", f"svc/{name}", "-n", "default", "-o", "json"]
            trace = Told(
                subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            warm_up(trace, ways, [spaces[p.metadata.name] for p in pods["client"]], set(record.nodes))
            arguments, began = (json.dumps(ways), str(each)), time.monotonic_ns()
            clients = [
                inside(spaces[p.metadata.name], CLIENT, *arguments, str(seed + i), str(PACE_S))
                for i, p in enumerate(pods["client"])
            ]
            truth = [json.loads(line) for client in clients for line in client.communicate()[0].splitlines()]
            one, more = judge([p for p in trace.paths() if (p["t_ns"] or 0) >= began], truth)
            print(f"{name}: {len(truth)} connections, {one}", flush=True)
            for field in ("right", "unknown", "missing", "wrong"):
                setattr(score, field, getattr(score, field) + getattr(one, field))
            errors += more
    finally:
        for server in servers:
            server.kill()
            server.communicate()
    return score, errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--proxy-mode", default="iptables")
    parser.add_argument("--overlay", default="none")
    parser.add_argument("--ip-family", default="ipv4")
    parser.add_argument("--bundles", default="", help="a folder for the recorded traces")
    asked = parser.parse_args()
    name = "truth"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "objects.yaml").write_text("---\n".join(json.dumps(o) + "\n" for o in OBJECTS))
        options = ("--proxy-mode", asked.proxy_mode, "--overlay", asked.overlay, "--ip-family", asked.ip_family)
        genainet("lab", "up", "--name", name, "--manifests", folder, *options)
    try:
        score, errors = run(lab_record(name), asked.connections, asked.seed, asked.bundles)
    finally:
        genainet("lab", "down", "--name", name)
    judged = score.right + score.wrong + score.missing
    kinds = Counter(error.partition("; ")[2] for error in errors)
    print(f"{score}; right: {score.right / max(1, judged):.2%}")
    print("\n".join(f"{n} × {what}" for what, n in kinds.most_common(20)))
    print("\n".join(errors[:20]))
    return 0 if judged and score.right >= WANTED * judged else 1


if __name__ == "__main__":
    sys.exit(main())
