"""A cluster of 1,000 nodes, 50,000 pods, 5,000 Services and 3,000 policies on a real API server: what each verb costs there.

The objects exist only in etcd (see _big_cluster.py), and the agents are simulated (see _fake_agents.py). Printed of each
command, in a process of its own: the time to its first word (of a live command: that it loads the probes, all objects being
read), to its first output (of a live one as JSON: after a second of watching) and to its end, its peak memory, and the
requests that the API server counted. `python -m benchmarks.scale NAME...` runs some of them. Needs root and `make kubernetes`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import select

from benchmarks._big_cluster import Size, namespace_of
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.processes import remove_leftovers, wait_for

ROOT = Path(__file__).parents[1]
LIMIT_S, LIMIT_MB = 15.0, 400
LAST_WORDS = 1 << 16  # bytes of what a command said that are kept
SIZE = Size()
COMMANDS = {
    "explain": ("explain", "deploy/model-50", "svc/model-0", "-n", "team-0"),
    "matrix": ("matrix", "-n", "team-0"),
    "doctor": ("doctor", "-n", "team-0"),
    "doctor -A": ("doctor", "-A"),
}
# With the agents, in this order.
AGENTS_COMMANDS = {
    "deploy": ("deploy", "--wait", "--timeout", "300s", "--image", "registry.example/agent:1"),
    "status": ("status",),
    "trace": ("trace", "svc/model-0", "-n", "team-0", "--timeout", "1s", "-o", "json"),
    "drops": ("drops", "svc/model-0", "-n", "team-0", "--timeout", "1s", "-o", "json"),
}
_COUNTER = re.compile(r'^apiserver_request_total\{.*resource="([^"]*)".*verb="(LIST|WATCH|GET)".*\} (\d+)$', re.M)


@dataclass(frozen=True)
class Cost:
    """`word_s`: when the user heard first that it is at work, on standard error or output; `first_s`: on standard output."""

    word_s: float
    first_s: float
    total_s: float
    cpu_s: float
    peak_mb: int
    status: int
    error: str


def run_command(argv: tuple[str, ...], kubeconfig: str) -> Cost:
    """Runs a command to its end."""
    command = [sys.executable, "-m", "kubectl_genainet", *argv, "--kubeconfig", kubeconfig]
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    said, first = {process.stdout: b"", process.stderr: b""}, dict[object, float]()
    while said.keys() - {stream for stream in said if stream.closed}:
        for stream in select([s for s in said if not s.closed], [], [])[0]:
            data = os.read(stream.fileno(), 1 << 16)
            first.setdefault(stream, time.monotonic() - started)
            said[stream] = (said[stream] + data)[-LAST_WORDS:]
            if not data:
                stream.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        min(first.values()),
        first[process.stdout],
        time.monotonic() - started,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss // 1024,
        process.returncode,
        said[process.stderr].decode(errors="replace"),
    )


def requests_so_far(plane: ControlPlane) -> Counter[str]:
    counted: Counter[str] = Counter()
    for resource, verb, count in _COUNTER.findall(plane.api().get("/metrics")):
        counted[f"{verb} {resource}"] += int(count)
    return counted


def fill(plane: ControlPlane) -> float:
    """Puts the objects into etcd, and waits until the API server has them all; gives the seconds."""
    started = time.monotonic()
    argv = plane.netns.call(sys.executable, "-m", "benchmarks._big_cluster")
    subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    last = SIZE.services - 1
    name = f"model-{last}-7d9c6b5f4-{SIZE.pods - 1:05d}"
    # From the API server's cache, which lists are answered from: it reads etcd's changes for some seconds longer.
    path = f"/api/v1/namespaces/{namespace_of(last, SIZE)}/pods?resourceVersion=0&limit=1000000"
    wait_for(
        "the last pod",
        lambda: any(pod["metadata"]["name"] == name for pod in plane.api().get(path)["items"]),
        120,
    )
    return time.monotonic() - started


@contextmanager
def agents(plane: ControlPlane) -> Iterator[None]:
    """The DaemonSet controller, and a process that is every node's kubelet and agent."""
    plane.daemon(
        "kube-controller-manager",
        "kube-controller-manager",
        f"--kubeconfig={plane.kubeconfig('admin', inside=True)}",
        "--controllers=daemonset-controller",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
    )
    server, key = f"https://{plane.ip}:6443", str(plane.folder / "ca.key")
    argv = plane.netns.call(sys.executable, "-m", "benchmarks._fake_agents", "--server", server)
    options = ("--certificate", str(plane.ca), "--key", key, "--token", plane.tokens["admin"])
    with subprocess.Popen([*argv, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True) as kubelets:
        assert kubelets.stdout is not None
        kubelets.stdout.readline()  # "ready"
        try:
            yield
        finally:
            kubelets.kill()


def measure(plane: ControlPlane, commands: Mapping[str, tuple[str, ...]], chosen: Collection[str]) -> None:
    """Prints what each command costs; a figure beyond the limit is marked."""
    kubeconfig = str(plane.kubeconfig())
    for name, argv in commands.items():
        if chosen and name not in chosen:
            continue
        before = requests_so_far(plane)
        cost = run_command(argv, kubeconfig)
        asked = requests_so_far(plane) - before
        beyond = "" if cost.word_s <= LIMIT_S and cost.peak_mb <= LIMIT_MB else "  BEYOND THE LIMIT"
        print(
            f"scale: {name:10} first word {cost.word_s:5.1f} s, first output {cost.first_s:5.1f} s, end {cost.total_s:5.1f} s, "
            f"CPU {cost.cpu_s:4.1f} s, peak {cost.peak_mb} MB, status {cost.status}{beyond}",
            flush=True,
        )
        print(f"scale: {'':10} {', '.join(f'{what} {n}' for what, n in sorted(asked.items()))}", flush=True)
        if cost.status > 1:
            print(cost.error[-2000:], flush=True)


def main(chosen: Collection[str] = ()) -> None:
    remove_leftovers()
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Binaries.built(), Path(folder), "scale") as plane:
        print(
            f"scale: {SIZE.nodes} nodes, {SIZE.pods} pods, {SIZE.services} Services, {SIZE.policies} policies "
            f"in the API server after {fill(plane):.0f} s",
            flush=True,
        )
        measure(plane, COMMANDS, chosen)
        if not chosen or set(AGENTS_COMMANDS) & set(chosen):
            with agents(plane):
                measure(plane, AGENTS_COMMANDS, chosen and {"deploy", *chosen})


if __name__ == "__main__":
    main(sys.argv[1:])
