"""What a recorder costs a node: connections at a steady rate through a Service in the lab, with and without `--record`.

Baseline: the same load in a lab whose agents do not record. Printed for each node: CPU of the agent's processes and of its BPF
programs, memory, bytes on the disk for each connection; and whether the recorded totals are the workload's own counts.

    python -m benchmarks recorder
    GENAINET_LOAD=2000 GENAINET_LOAD_SECONDS=60 python -m benchmarks recorder
    GENAINET_LOAD_NODES=1 python -m benchmarks recorder   # an agent sees the packets of its own node only
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.load import RATES, Lab, Load, describe, lab, run_load
from kubectl_genainet.agent.record.options import CPU_PERCENT
from kubectl_genainet.history.blocks import Block, scan
from kubectl_genainet.history.store import segments
from kubectl_genainet.lab.programs.start import history_folder
from kubectl_genainet.lab.state import LabFolder
from kubectl_genainet.model.events import Sampled, Tick
from kubectl_genainet.model.history import BUCKET_S
from kubectl_genainet.model.packet import ALL_KEPT

SECONDS = float(os.environ.get("GENAINET_LOAD_SECONDS", "60"))
LIMIT_BYTES, LIMIT_MB = 64.0, 150.0
CALM_S = 25.0  # after the load: what the kernel counted is read, the last bucket closed and written
START_S = 120.0
READ_S = 3.0  # until what was counted before has been read, and its bucket closed


@dataclass
class Agent:
    """One node's agent while the load runs. `memory_mb` is the most that its processes had at once (PSS)."""

    node: str
    pid: int
    folder: Path
    memory_mb: float = 0.0
    cpu_s: dict[int, float] = field(default_factory=dict)

    def processes(self) -> list[int]:
        listed = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False).stdout
        return [self.pid, *map(int, listed.split())]

    def look(self) -> None:
        memory = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):  # a process that has ended
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self.cpu_s[pid] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                memory += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        self.memory_mb = max(self.memory_mb, memory / 1024)

    def recorded(self, since_ns: int = 0) -> list[Block]:
        parts = (part for segment in segments(self.folder) for part in scan(segment.path.read_bytes()))
        return [part for part in parts if isinstance(part, Block) and part.covers.wall_until > since_ns]


def agents_of(running: Lab) -> list[Agent]:
    folder = LabFolder(running.record.spec.name)
    pids = {role.removeprefix("agent/"): pid for role, pid in running.record.pids.items() if role.startswith("agent/")}
    return [Agent(node, pid, history_folder(folder, node)) for node, pid in sorted(pids.items())]


def wait_until_recording(agents: list[Agent]) -> None:
    end = time.monotonic() + START_S
    while not all(agent.recorded() for agent in agents):
        if time.monotonic() > end:
            sys.exit("the agents do not record")
        time.sleep(0.5)


def wait_for_a_bucket() -> int:
    """Totals are of whole buckets, of what was read from the kernel's tables by their end: the load begins well within one.
    Returns the time of its begin."""
    time.sleep(BUCKET_S - time.time() % BUCKET_S + READ_S)
    return (time.time_ns() // 10**9 // BUCKET_S) * BUCKET_S * 10**9


@contextlib.contextmanager
def watching(agents: list[Agent]) -> Iterator[None]:
    """Looks at the agents' memory and CPU time each second."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(1.0):
            for agent in agents:
                agent.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def describe_agent(
    agent: Agent, before: dict[int, float], since_ns: int, loaded_until_ns: int, connections: int
) -> int:
    """Prints two lines; returns the bytes on the disk."""
    blocks = agent.recorded(since_ns)
    written = sum(len(block.data) for block in blocks)
    records = [(block.covers.ahead, record) for block in blocks for record in block.records()]
    ticks = [r for ahead, r in records if isinstance(r, Tick) and since_ns <= r.t_ns + ahead <= loaded_until_ns]
    first, last = ticks[0], ticks[-1]
    seconds = (last.t_ns - first.t_ns) / 1e9
    session = ((last.cpu_ns or 0) - (first.cpu_ns or 0)) / 1e7 / seconds
    programs = ((last.kernel_ns or 0) - (first.kernel_ns or 0)) / 1e7 / seconds
    server = 100 * (agent.cpu_s[agent.pid] - before[agent.pid]) / SECONDS
    kept = min((record.share for _, record in records if isinstance(record, Sampled)), default=ALL_KEPT)
    print(
        f"      {agent.node}: session {session:.1f} + programs {programs:.1f} + server {server:.1f} % of a core (the budget is "
        f"{CPU_PERCENT:g} %); memory {agent.memory_mb:.0f} MB ({_verdict(agent.memory_mb, LIMIT_MB)} {LIMIT_MB:g} MB)",
        flush=True,
    )
    print(
        f"      {agent.node}: {written:,} bytes written, {written / connections:.1f} a connection; kept whole, at the least: "
        f"one connection in {ALL_KEPT / max(kept, 1):.0f}",
        flush=True,
    )
    return written


def _verdict(measured: float, limit: float) -> str:
    return "within" if measured <= limit else "ABOVE"


def describe_totals(running: Lab, load: Load, since_ns: int, until_ns: int) -> None:
    """Whether what the recording says of the time is what the workload counted."""
    times = [datetime.fromtimestamp(t / 1e9, UTC).isoformat() for t in (since_ns, until_ns)]
    command = [sys.executable, "-m", "kubectl_genainet", "trace", "svc/load", "--lab", running.record.spec.name]
    command += ["--since", times[0], "--until", times[1], "-o", "json"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    summary: dict[str, Any] = next((row for row in rows if row.get("kind") == "summary"), {})
    counted: dict[str, Counter[str]] = {"client": Counter(), "server": Counter()}
    for row in summary.get("totals") or []:
        counted[row["counted_at"]].update({name: value for name, value in row.items() if isinstance(value, int)})
    pairs = {
        "opened": (counted["client"]["opened"], load.calls["opened"]),
        "established": (counted["server"]["established"], load.servers["accepted"]),
    }
    different = [f"{name} {recorded} of {true}" for name, (recorded, true) in pairs.items() if recorded != true]
    print(
        f"      trace --since: {took:.1f} s, {sum('hops' in row for row in rows)} paths; totals: "
        f"{'as the workload counted them' if not different else '; '.join(different)}",
        flush=True,
    )
    if not summary:
        print(done.stderr[-2000:])


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("this benchmark loads BPF programs and makes network namespaces: run it as root")
    for rate in RATES:
        with lab() as plain:
            baseline = run_load(plain, rate, SECONDS)
            describe("off", rate, baseline)
        with lab(recorders=True) as running:
            agents = agents_of(running)
            wait_until_recording(agents)
            for agent in agents:
                agent.look()
            before = {agent.node: dict(agent.cpu_s) for agent in agents}
            since_ns = wait_for_a_bucket()
            with watching(agents):
                load = run_load(running, rate, SECONDS)
                loaded_until_ns = time.time_ns()
                time.sleep(CALM_S)
            until_ns = time.time_ns()
            describe("on", rate, load)
            connections = load.calls["opened"]
            each = [
                describe_agent(agent, before[agent.node], since_ns, loaded_until_ns, connections) for agent in agents
            ]
            a_connection = sum(each) / max(connections, 1)
            verdict = _verdict(a_connection, LIMIT_BYTES)
            print(f"      all nodes: {a_connection:.1f} bytes a connection ({verdict} {LIMIT_BYTES:g})")
            print(f"      mean latency {load.mean_ms / max(baseline.mean_ms, 1e-3):.2f} x that without a recorder")
            describe_totals(running, load, since_ns, until_ns)


if __name__ == "__main__":
    main()
