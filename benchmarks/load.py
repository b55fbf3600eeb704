"""What a trace costs a cluster that is busy: connections at a steady rate through a Service in the lab, on one machine with
three agents and the client. Without a trace, with `trace -o json` and its client where nothing else wants to run ("away": it
stands for one on another machine), with `trace -o json`, with the tree in a terminal: the workload's timeouts and latency,
what the trace lost, whole paths a second, whether its totals are those of the servers' own counts, the agents' CPU time, the
client's memory, how often the tree was drawn.

    python -m benchmarks load
    GENAINET_LOAD=500,2000 GENAINET_LOAD_SECONDS=20 python -m benchmarks load
    GENAINET_LOAD_NODES=1 python -m benchmarks load   # an agent sees the packets of its own node only
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._weights import LOAD_MILLICORES, Weights, agents_millicores
from kubectl_genainet.lab import cluster
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.lab.state import LabRecord, lab_snapshot

RATES = tuple(int(rate) for rate in os.environ.get("GENAINET_LOAD", "2000").split(","))
SECONDS = float(os.environ.get("GENAINET_LOAD_SECONDS", "20"))
NODES = int(os.environ.get("GENAINET_LOAD_NODES", "3"))
STATES = tuple(os.environ.get("GENAINET_LOAD_STATES", "off,away,off,json,off,tree,off").split(","))
TIMEOUT_MS = 1000  # of a connection: TCP sends its SYN again after a second
SETTLE_S = 5.0  # a trace watches so much longer than the load runs
PORT = 9000
MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: load}
spec:
  selector: {app: server}
  ports: [{name: tcp, port: 80, targetPort: 9000}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: 3
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec: {containers: [{name: server, image: lab.genainet/server}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller}
spec:
  replicas: 3
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller}}
    spec: {containers: [{name: caller, image: lab.genainet/caller}]}
"""


@dataclass
class Lab:
    record: LabRecord
    program: Path
    weights: Weights

    def pods(self, app: str) -> list[tuple[str, str]]:
        """(namespace's name, address) of each pod of the application."""
        pods = [p for p in lab_snapshot(self.record.spec.name).pods if p.metadata.labels.get("app") == app]
        return [(self.record.pods[f"{p.metadata.namespace}/{p.metadata.name}"], p.ips[0]) for p in pods]

    def service_ip(self) -> str:
        service = lab_snapshot(self.record.spec.name).service("default", "load")
        assert service is not None
        return service.cluster_ips[0]

    def start(self, namespace: str, *arguments: str) -> subprocess.Popen[str]:
        command = ["nsenter", f"--net=/run/netns/{namespace}", str(self.program), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.weights.put("load", LOAD_MILLICORES, process.pid)
        return process

    def agents_cpu_s(self) -> dict[str, float]:
        """CPU time of each agent and of the workers that it has waited for."""
        found = {}
        for role, pid in self.record.pids.items():
            if role.startswith("agent/"):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                found[role] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        return found


@contextmanager
def lab(*, recorders: bool = False) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "load"
        source = Path(__file__).with_name("_load.c")
        subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
        manifests = Path(folder) / "manifests"
        manifests.mkdir()
        (manifests / "load.yaml").write_text(MANIFESTS)
        name = f"load{os.getpid()}"
        with Weights() as weights:
            record = cluster.up(LabSpec(name=name, nodes=NODES, manifests=str(manifests), record=recorders))
            try:
                for role, pid in record.pids.items():
                    if role.startswith("agent/"):
                        weights.put(role, agents_millicores(), pid)
                yield Lab(record, program, weights)
            finally:
                cluster.down(name)


@dataclass
class Load:
    """What client and servers counted themselves."""

    calls: Counter[str] = field(default_factory=Counter)
    latencies: list[tuple[float, float, float]] = field(default_factory=list)  # of each client: mean, p50, p99, in ms
    servers: Counter[str] = field(default_factory=Counter)
    by_server: dict[str, int] = field(default_factory=dict)

    @property
    def mean_ms(self) -> float:
        return sum(latency[0] for latency in self.latencies) / len(self.latencies)


def run_load(lab: Lab, rate: int, seconds: float = SECONDS) -> Load:
    """Opens `rate` connections a second, from three pods to the Service of three."""
    load = Load()
    servers = {ip: lab.start(namespace, "serve", ip, str(PORT)) for namespace, ip in lab.pods("server")}
    time.sleep(0.3)
    callers = lab.pods("caller")
    each = (lab.service_ip(), "80", str(rate / len(callers)), str(seconds), str(TIMEOUT_MS))
    clients = [lab.start(namespace, "call", *each) for namespace, _ in callers]
    for client in clients:
        said = json.loads(client.communicate(timeout=seconds + 60)[0])
        load.calls.update({k: v for k, v in said.items() if isinstance(v, int)})
        load.latencies.append((said["mean_ms"], said["p50_ms"], said["p99_ms"]))
    for ip, server in servers.items():
        server.send_signal(signal.SIGTERM)
        said = json.loads(server.communicate(timeout=10)[0])
        load.servers.update(said)
        load.by_server[ip] = said["accepted"]
    return load


@dataclass
class Trace:
    """A `trace` beside the load, and what became of it."""

    output: str
    process: subprocess.Popen[bytes]
    folder: Path
    terminal: int = -1
    drawn: list[float] = field(default_factory=list)
    memory_mb: float = 0.0
    cpu_s: float = 0.0

    def read_terminal(self) -> None:
        """Notes when the line below the tree was drawn."""
        rest = b""
        while True:
            try:
                data = os.read(self.terminal, 65536)
            except OSError:
                return
            if not data:
                return
            rest += data
            count = rest.count(b"watching svc/load on")
            rest = rest[rest.rfind(b"watching svc/load on") + 20 :][-64:] if count else rest[-64:]
            self.drawn += [time.monotonic()] * count

    def wait(self) -> None:
        if self.process.returncode is not None:
            return
        _, _, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        self.memory_mb = usage.ru_maxrss / 1024
        self.cpu_s = usage.ru_utime + usage.ru_stime

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines() if line.startswith("{")]


def attached() -> set[int]:
    """The programs that are attached to the last tracepoint of the last probe."""
    command, listed = ["bpftool", "-j", "link", "list"], None
    while listed is None or listed.returncode:  # it fails where another's link goes while it lists
        listed = subprocess.run(command, capture_output=True, check=False)
    links = json.loads(listed.stdout)
    return {link["id"] for link in links if link.get("tp_name") == "inet_sock_set_state"}


def wait_until_attached(process: subprocess.Popen[bytes], before: set[int]) -> None:
    end = time.monotonic() + 90
    while len(attached() - before) < NODES and process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(0.5)


@contextmanager
def tracing(lab: Lab, output: str) -> Iterator[Trace]:
    """Runs `trace` for the time of the load and a little more; yields when all nodes are watched."""
    folder = Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "kubectl_genainet", "trace", "svc/load", "--lab", lab.record.spec.name]
    command += ["--timeout", f"{SECONDS + SETTLE_S}s", "-o", "json" if output == "away" else output]
    environment = {**os.environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    before = attached()
    terminal, other = pty.openpty() if output == "tree" else (-1, -1)
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=other if other >= 0 else out, stderr=err, env=environment)
    if output == "away":
        lab.weights.put_last("client", process.pid)
    trace = Trace(output, process, folder, terminal)
    if other >= 0:
        os.close(other)
        threading.Thread(target=trace.read_terminal, daemon=True).start()
    try:
        wait_until_attached(process, before)
        yield trace
    finally:
        trace.wait()
        shutil.rmtree(folder)


def whole(record: dict[str, Any]) -> bool:
    """Whether a path names client, Service, translation and backend, and has both ends' devices."""
    backend, hops = record.get("backend") or {}, record.get("hops") or []
    named = record["flow"]["client"]["pod"] and record["flow"]["service"] and backend.get("pod") and record.get("nat")
    return bool(named and len(hops) >= 4 and hops[-1]["pod"] == backend["pod"] and not record["incomplete"])


def describe(state: str, rate: int, load: Load) -> None:
    calls = load.calls
    middle, worst = (max(latency[i] for latency in load.latencies) for i in (1, 2))
    print(
        f"{state:5} {rate:5}/s: opened {calls['opened']}, answered {calls['answered']}, timeouts {calls['timeouts']}, failed "
        f"{calls['failed']}; latency mean {load.mean_ms:.2f} ms, p50 {middle:.1f}, p99 {worst:.1f} ms; servers "
        f"accepted {load.servers['accepted']}",
        flush=True,
    )


def describe_trace(trace: Trace, load: Load, cpu: dict[str, float]) -> None:
    shares = ", ".join(f"{100 * s / (SECONDS + SETTLE_S):.1f} %" for s in cpu.values())
    print(
        f"      agents' CPU {shares} of a core (their whole life); client {trace.memory_mb:.0f} MB, "
        f"{100 * trace.cpu_s / (SECONDS + SETTLE_S):.0f} % of a core"
    )
    if trace.output == "tree":
        gaps = [b - a for a, b in zip(trace.drawn, trace.drawn[1:], strict=False)]
        seconds = (trace.drawn[-1] - trace.drawn[0]) if len(trace.drawn) > 1 else 0
        per_second = len(gaps) / seconds if seconds else 0
        print(f"      drawn {per_second:.1f} times a second, longest pause {max(gaps, default=0):.2f} s")
        return
    records = trace.records()
    paths = [r for r in records if "verdict" in r and "hops" in r]
    summary = next((r for r in records if r.get("kind") == "summary"), {})
    verdicts = Counter(p["verdict"] for p in paths)
    good = sum(map(whole, paths))
    wrong = sum(p["verdict"] not in ("forwarded", "unknown") for p in paths)
    lacking = sum(not whole(p) and not p["incomplete"] for p in paths)
    if example := next((p for p in paths if not whole(p) and not p["incomplete"]), None):
        print(f"      for example {json.dumps(example)[:3000]}")
    print(
        f"      paths {len(paths)} ({dict(verdicts)}), whole {good}: {good / SECONDS:.0f} a second; marked incomplete "
        f"{sum(p['incomplete'] for p in paths)}, lacking something and not marked {lacking}, wrong verdicts {wrong}"
    )
    print(
        f"      events {summary.get('events')}, lost {[(x['where'], x['count']) for x in summary.get('lost', [])]}; half seen "
        f"{summary.get('half_seen')}, left out {summary.get('left_out')}, one in {summary.get('sampled')}"
    )
    print(
        f"      agents while watching: {[(a['processes'], a['programs'], a['highest']) for a in summary.get('agents', [])]}"
    )
    counted: dict[str, Counter[str]] = {"client": Counter(), "server": Counter()}
    for row in summary.get("totals") or []:
        counted[row["counted_at"]].update({k: v for k, v in row.items() if isinstance(v, int)})
    clients, servers = counted["client"], counted["server"]
    pairs = {
        "opened": (clients["opened"], load.calls["opened"]),
        "established": (servers["established"], load.servers["accepted"]),
        "bytes asked": (servers["received"], load.servers["received"]),
        "bytes back": (servers["sent"], load.servers["sent"]),
        "received": (clients["received"], load.calls["received"]),
    }
    off = [f"{name} {told} of {true}" for name, (told, true) in pairs.items() if told != true]
    print(f"      totals: {'all as the workload counted them' if not off else '; '.join(off)}")


def ratios(runs: list[tuple[str, float]]) -> dict[str, list[float]]:
    """By state: the mean latency of each of its runs, in those of the untraced runs just before and after it. What else the
    machine does changes from one minute to the next."""
    found: dict[str, list[float]] = defaultdict(list)
    for number, (state, latency) in enumerate(runs):
        around = [ms for other, ms in runs[max(0, number - 1) : number + 2] if other == "off"]
        if state != "off" and around:
            found[state].append(latency / statistics.mean(around))
    return found


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("this benchmark loads BPF programs and makes network namespaces: run it as root")
    with lab() as running:
        for rate in RATES:
            runs: list[tuple[str, float]] = []
            for state in STATES:
                if state == "off":
                    load = run_load(running, rate)
                    describe(state, rate, load)
                else:
                    before = running.agents_cpu_s()
                    with tracing(running, state) as trace:
                        load = run_load(running, rate)
                        describe(state, rate, load)
                        trace.wait()
                        after = running.agents_cpu_s()
                        describe_trace(trace, load, {k: after[k] - before[k] for k in after})
                runs.append((state, load.mean_ms))
            for state, times in ratios(runs).items():
                told = ", ".join(f"{time:.2f}" for time in times)
                print(f"{state:5} {rate:5}/s: mean latency {told} x that of the untraced runs beside it", flush=True)
