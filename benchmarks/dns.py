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
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from benchmarks._bpftrace import bpftrace
from benchmarks._veth import CLIENT, ROUTER, SERVER, SERVER_IP, veth_path
from benchmarks.trace import Worker, nothing
from kubectl_genainet import wire
from kubectl_genainet.agent.session.job import Job
from kubectl_genainet.model.events import Bye, Event, LostEvents, Progress
from kubectl_genainet.wire import FilterEntry, TraceRequest

RATE = 20_000
SECONDS = 5
ROUNDS = 3

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


class DnsWorker(Worker):
    """An agent's worker that watches DNS; its records are counted as they come, as a client would."""

    def __init__(self) -> None:
        filters = (FilterEntry(SERVER_IP, 53, "UDP"), FilterEntry(SERVER_IP, 53, "TCP"))
        request = TraceRequest(filters=filters, probes=("dns",), timeout_s=600, rulesets=False, max_events=10_000_000)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kubectl_genainet.agent.session.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        job = Job(request, "bench", f"/run/netns/{ROUTER}", str(Path(tempfile.gettempdir()) / "kubectl-genainet"))
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
    process = subprocess.Popen([*_inside(SERVER), "serve", SERVER_IP])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait(10)


def _inside(namespace: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-m", "benchmarks._dnsload"]


def ask(rate: int, seconds: float) -> tuple[int, int]:
    """(queries sent, answers received)."""
    command = [*_inside(CLIENT), "ask", SERVER_IP, str(rate), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    sent, got = map(int, done.stdout.split())
    return sent, got


def at_rate() -> None:
    """At RATE: what is sent and answered in the three states, and what the agent makes of it."""
    sent, got = ask(RATE, SECONDS)
    off = got / SECONDS
    print(f"off        {sent / SECONDS:,.0f} queries/s of {RATE:,}, {off:,.0f} answered")
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
        f"dns        {sent / SECONDS:,.0f} queries/s, {got / SECONDS:,.0f} answered, ratio {got / SECONDS / off:.3f}; of {sent} "
        f"sent, exchanges reported {worker.records['dns']}, drops {worker.records['dns_drop']}, lost {dict(lost) or 0}; not "
        f"accounted for: {max(0, sent - known)}; agent CPU {share:.0%} of a core; memory {pss:.0f} MB proportional, "
        f"{dirty:.0f} MB private"
    )
    with bpftrace(BPFTRACE):
        sent, got = ask(RATE, SECONDS)
    print(f"bpftrace   {sent / SECONDS:,.0f} queries/s, {got / SECONDS:,.0f} answered, ratio {got / SECONDS / off:.3f}")


def ratios() -> None:
    """Closed loop, the states taking turns so that drift hits all alike; each is held against the `off` of its round."""
    results: dict[str, list[float]] = {}
    states: tuple[tuple[str, Callable[[], AbstractContextManager[object]]], ...] = (
        ("off", nothing),
        ("dns", watching),
        ("bpftrace", lambda: bpftrace(BPFTRACE)),
    )
    for _ in range(ROUNDS):
        for name, state in states:
            with state():
                _, got = ask(0, 3)
                results.setdefault(name, []).append(got / 3)
    for name, values in results.items():
        pairs = [value / base for value, base in zip(values, results["off"], strict=True)]
        print(
            f"{name:10} unpaced {statistics.median(values):9,.0f} exchanges/s   ratio to off: median "
            f"{statistics.median(pairs):.3f}, {min(pairs):.3f} to {max(pairs):.3f}"
        )


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("this benchmark loads BPF programs and makes network namespaces: run it as root")
    with veth_path(), server():
        at_rate()
        ratios()
