"""What watching DNS costs: 20,000 queries a second through three namespaces; CPU and memory of the agent, what it lost,
whether it counted every query; the rate that client and server reach without it, with it, and beside a bpftrace program
that counts the same messages at the same tracepoints by name."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks._bpftrace import bpftrace
from benchmarks._veth import CLIENT, SERVER, SERVER_IP, veth_path
from benchmarks.trace import Worker, nothing
from kubectl_genainet import wire
from kubectl_genainet.agent.worker import Job
from kubectl_genainet.model.events import Bye, Event, LostEvents, Progress
from kubectl_genainet.wire import FilterEntry, TraceRequest

RATE = 20_000
SECONDS = 5
ROUNDS = 3
NAMES = 1000

BPFTRACE = """
tracepoint:net:net_dev_queue, tracepoint:net:netif_receive_skb, tracepoint:skb:kfree_skb {
  $skb = (struct sk_buff *)args->skbaddr;
  $ip = (struct iphdr *)($skb->head + $skb->network_header);
  if ($ip->protocol == 17) {
    $udp = (struct udphdr *)($skb->head + $skb->network_header + 20);
    if ($udp->dest == 13568 || $udp->source == 13568) {
      $message = (uint8 *)($skb->head + $skb->network_header + 28);
      @messages[$skb->dev->ifindex, $skb->dev->nd_net.net->ns.inum, $ip->saddr, $ip->daddr, str($message + 13, 40)] = count();
    }
  }
}
"""

SERVE = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
s.bind(("{SERVER_IP}", 53))
b = bytearray(600)
while True:
    n, a = s.recvfrom_into(b)
    b[2] |= 0x80
    s.sendto(memoryview(b)[:n], a)
"""

# Argument: queries a second (0: as fast as answers come), seconds. Prints queries sent, answers received.
ASK = f"""
import socket, struct, sys, time
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
def query(i):
    label = f"name{{i % {NAMES}:04}}".encode()
    name = bytes([len(label)]) + label + b"\\7example\\3com\\0"
    return struct.pack("!6H", i & 0xffff, 0x0100, 1, 0, 0, 0) + name + b"\\0\\1\\0\\1"
queries = [query(i) for i in range(65536)]
socks = []
for _ in range(8):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.connect(("{SERVER_IP}", 53))
    s.setblocking(False)
    socks.append(s)
sent = got = 0
window = 64 if not rate else 1 << 30
start = time.monotonic()
while (now := time.monotonic() - start) < seconds:
    due = sent + 32 if not rate else int(now * rate)
    while sent < due and sent - got < window:
        try:
            socks[sent & 7].send(queries[sent & 0xffff])
        except (BlockingIOError, ConnectionRefusedError):
            break
        sent += 1
    for s in socks:
        try:
            while True:
                s.recv(600)
                got += 1
        except BlockingIOError:
            pass
end = time.monotonic() + 0.5
while got < sent and time.monotonic() < end:
    for s in socks:
        try:
            while True:
                s.recv(600)
                got += 1
        except BlockingIOError:
            pass
print(sent, got)
"""


class DnsWorker(Worker):
    """An agent's worker that watches DNS; its records are counted as they come, as a client would."""

    def __init__(self) -> None:
        filters = (FilterEntry(SERVER_IP, 53, "UDP"), FilterEntry(SERVER_IP, 53, "TCP"))
        request = TraceRequest(filters=filters, probes=("dns",), timeout_s=600, rulesets=False, max_events=10_000_000)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kubectl_genainet.agent.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        job = Job(request, "bench", "/proc/self/ns/net", str(Path(tempfile.gettempdir()) / "kubectl-genainet"))
        self.process.stdin.write(msgspec.json.encode(job) + b"\n")
        self.process.stdin.flush()
        self.until(lambda e: isinstance(e, Progress) and e.stage == "attached")
        self.records: Counter[str] = Counter()
        self.lost: list[LostEvents] = []
        self.bye: Bye | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind = line[9 : line.index(b'"', 9)].decode()
            self.records[kind] += 1
            if kind.startswith("dns"):
                continue
            event: Event = wire.decode(line)
            if isinstance(event, LostEvents):
                self.lost.append(event)
            if isinstance(event, Bye):
                self.bye = event

    def stop(self) -> list[Event]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._reader.join(30)
        self.process.wait(30)
        return []


@contextmanager
def watching() -> Iterator[DnsWorker]:
    worker = DnsWorker()
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.stop()


@contextmanager
def server() -> Iterator[None]:
    process = subprocess.Popen(["nsenter", f"--net=/run/netns/{SERVER}", sys.executable, "-c", SERVE])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait(10)


def ask(rate: int, seconds: float) -> tuple[int, int]:
    """(queries sent, answers received)."""
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{CLIENT}", sys.executable, "-c", ASK, str(rate), str(seconds)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    sent, got = map(int, done.stdout.split())
    return sent, got


def at_rate() -> None:
    with watching() as worker:
        cpu, start = worker.cpu_s(), time.monotonic()
        sent, got = ask(RATE, SECONDS)
        seconds = time.monotonic() - start
        share = (worker.cpu_s() - cpu) / seconds
        pss, dirty = worker.memory()
        worker.stop()
    lost: Counter[str] = Counter()
    for event in worker.lost:
        lost[event.where] += event.count
    known = worker.records["dns"] + lost.total()
    print(
        f"{RATE:,} queries/s  sent {sent} in {SECONDS} s, answered {got}; exchanges reported {worker.records['dns']}, drops "
        f"{worker.records['dns_drop']}, lost {dict(lost) or 0}; not accounted for: {max(0, sent - known)}"
    )
    print(f"                agent CPU {share:.0%} of a core; memory {pss:.0f} MB proportional, {dirty:.0f} MB private")


def ratios() -> None:
    """Closed loop, the states taking turns so that drift hits all alike."""
    results: dict[str, list[float]] = {}
    states: tuple[tuple[str, Callable[[], object]], ...] = (
        ("off", nothing), ("dns", watching), ("bpftrace", lambda: bpftrace(BPFTRACE)),
    )  # fmt: skip
    for _ in range(ROUNDS):
        for name, state in states:
            with state():  # type: ignore[attr-defined]
                _, got = ask(0, 3)
                results.setdefault(name, []).append(got / 3)
    off = statistics.median(results["off"])
    for name, values in results.items():
        print(
            f"{name:10} {statistics.median(values):9,.0f} exchanges/s   ratio to off {statistics.median(values) / off:.3f}"
        )


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("this benchmark loads BPF programs and makes network namespaces: run it as root")
    with veth_path(), server():
        at_rate()
        ratios()
