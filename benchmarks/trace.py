"""What tracing costs: throughput with the probes off, attached but matching nothing, and following an elephant flow;
ns a hook from the kernel's own run-time statistics, beside a bpftrace program that reads the same fields at the same
tracepoints; events lost at a known rate of matched packets; start-up and memory."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from benchmarks import _bpftrace
from benchmarks._veth import CLIENT, PORT, ROUTER, SERVER_IP, iperf, veth_path
from kubectl_genainet import wire
from kubectl_genainet.agent.session.job import Job
from kubectl_genainet.model.events import Bye, Event, PacketSeen, Progress
from kubectl_genainet.wire import FilterEntry, TraceRequest

ROUNDS = 5
SECONDS = 2
NOTHING = (FilterEntry("192.0.2.1", 9, "TCP"),)
ELEPHANT = (FilterEntry(SERVER_IP, PORT),)

# The same fields at the same tracepoints, matched on the port, counted in a map.
BPFTRACE = """
tracepoint:net:net_dev_queue, tracepoint:net:netif_receive_skb, tracepoint:skb:kfree_skb {
  $skb = (struct sk_buff *)args->skbaddr;
  $ip = (struct iphdr *)($skb->head + $skb->network_header);
  if ($ip->protocol == 6) {
    $tcp = (struct tcphdr *)($skb->head + $skb->network_header + 20);
    if ($tcp->dest == PORT || $tcp->source == PORT) {
      $where = $skb->dev->ifindex;
      $netns = $skb->dev->nd_net.net->ns.inum;
      @packets[$where, $netns, $ip->saddr, $ip->daddr, $tcp->source, $tcp->dest] = count();
      @bytes[$where, $netns, $ip->saddr, $ip->daddr, $tcp->source, $tcp->dest] = sum($skb->len);
    }
  }
}
"""


class Worker:
    """An agent's worker, run as the agent runs it, its records read to the end."""

    def __init__(self, filters: tuple[FilterEntry, ...], probe: str = "packet") -> None:
        request = TraceRequest(filters=filters, probes=(probe,), timeout_s=600, rulesets=False)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kubectl_genainet.agent.session.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        job = Job(request, "bench", f"/run/netns/{ROUTER}", str(Path(tempfile.gettempdir()) / "kubectl-genainet"))
        self.process.stdin.write(msgspec.json.encode(job) + b"\n")
        self.process.stdin.flush()
        self.until(lambda e: isinstance(e, Progress) and e.stage == "attached")
        self.attached = time.monotonic()

    def events(self) -> Iterator[Event]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield from wire.expand(wire.decode(line))

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        return next(e for e in self.events() if wanted(e))

    def memory(self) -> tuple[float, float]:
        """(proportional, private and dirty) set size in MB."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        fields = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        return fields["Pss"] / 1024, fields["Private_Dirty"] / 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> list[Event]:
        """Ends the session; returns what was left in the stream, Bye included."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        left = list(self.events())
        self.process.wait()
        return left


@contextmanager
def tracing(filters: tuple[FilterEntry, ...]) -> Iterator[Worker]:
    worker = Worker(filters)
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.stop()


def bpftrace() -> AbstractContextManager[object]:
    return _bpftrace.bpftrace(BPFTRACE.replace("PORT", str(int.from_bytes(PORT.to_bytes(2, "little"), "big"))))


@contextmanager
def empty_programs() -> Iterator[None]:
    """Programs that do nothing, at the two tracepoints: what the kernel's statistics say of those is the measuring's own."""
    import bcc

    os.environ["BCC_KERNEL_SOURCE"] = str(next((Path(tempfile.gettempdir()) / "kubectl-genainet").glob("headers-*")))
    program = bcc.BPF(text="int nothing(struct bpf_raw_tracepoint_args *ctx) { return 0; }")
    program.load_func("nothing", bcc.BPF.RAW_TRACEPOINT)
    program.attach_raw_tracepoint("net_dev_queue", "nothing")
    try:
        yield
    finally:
        program.cleanup()


@contextmanager
def nothing() -> Iterator[None]:
    yield


@contextmanager
def run_time_statistics() -> Iterator[None]:
    """Lets the kernel measure its BPF programs for as long as a descriptor is open (BPF_ENABLE_STATS, Linux 5.8)."""
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    attr = ctypes.create_string_buffer(struct.pack("=I", 0), 16)
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, 32, attr, 16)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_ENABLE_STATS")
    try:
        yield
    finally:
        os.close(fd)


def program_times() -> dict[str, tuple[int, int]]:
    """(run ns, runs) of every tracepoint program that runs now, by name and id."""
    done = subprocess.run(["bpftool", "-j", "prog", "list"], capture_output=True, check=True)
    programs = msgspec.json.decode(done.stdout)
    return {
        f"{p.get('name', '?')} {p['id']}": (p.get("run_time_ns", 0), p.get("run_cnt", 0))
        for p in programs
        if p["type"] in ("raw_tracepoint", "tracepoint")
    }


def throughput() -> float:
    return iperf("-t", str(SECONDS))["bits_per_second"] / 1e9


def ratios() -> None:
    """Throughput in the three states and beside bpftrace, the states taking turns so that drift hits all alike."""
    results: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, state in (
            ("off", nothing),
            ("nothing matches", lambda: tracing(NOTHING)),
            ("elephant", lambda: tracing(ELEPHANT)),
            ("bpftrace", bpftrace),
        ):
            with state():
                results.setdefault(name, []).append(throughput())
    off = statistics.median(results["off"])
    for name, values in results.items():
        pairs = [value / base for value, base in zip(values, results["off"], strict=True)]
        print(
            f"{name:16} {statistics.median(values):6.2f} Gbit/s   ratio to off: median {statistics.median(values) / off:.3f}, "
            f"in pairs {min(pairs):.3f} to {max(pairs):.3f}"
        )


def hook_cost() -> None:
    """ns a run, by program, from the kernel's statistics, under the same load."""
    for name, state in (
        ("empty program", empty_programs),
        ("nothing matches", lambda: tracing(NOTHING)),
        ("elephant", lambda: tracing(ELEPHANT)),
        ("bpftrace", bpftrace),
    ):
        others = set(program_times())  # of agents that run on this machine anyway
        with state(), run_time_statistics():
            before = program_times()
            throughput()
            after = program_times()
        total_ns = total_runs = 0
        for program, (ns, runs) in after.items():
            old_ns, old_runs = before.get(program, (0, 0))
            if runs - old_runs > 100 and program not in others:
                total_ns, total_runs = total_ns + ns - old_ns, total_runs + runs - old_runs
                print(
                    f"{name:16} {program.split()[0]:24} {(ns - old_ns) / (runs - old_runs):6.0f} ns, {runs - old_runs} runs"
                )
        print(f"{name:16} {'all':24} {total_ns / max(1, total_runs):6.0f} ns a run")


def losses() -> None:
    """100,000 and more matched packets a second (small UDP datagrams, sighted four times each on their way)."""
    with tracing(ELEPHANT) as worker:
        cpu, start = worker.cpu_s(), time.monotonic()
        result = iperf("-u", "-b", "0", "-l", "64", "-t", "4")
        seconds = time.monotonic() - start
        share = (worker.cpu_s() - cpu) / seconds
        pss, dirty = worker.memory()
        bye = next(e for e in worker.stop() if isinstance(e, Bye))
    rate = result["packets"] / result["seconds"]
    print(
        f"UDP flood        {rate:,.0f} datagrams/s, {4 * rate:,.0f} sightings/s; events emitted {bye.emitted}, "
        f"lost {bye.lost}; agent CPU {share:.1%} of a core; memory {pss:.0f} MB proportional, {dirty:.0f} MB private"
    )


def start_up() -> None:
    """From the start of the process until attached, and until the first event of traffic that is there already."""
    times = []
    for _ in range(3):
        load = subprocess.Popen(
            [
                "nsenter",
                f"--net=/run/netns/{CLIENT}",
                "bash",
                "-c",
                f"for i in {{1..60}}; do (echo > /dev/tcp/{SERVER_IP}/{PORT}) 2>/dev/null; sleep 0.05; done",
            ]
        )
        with tracing(ELEPHANT) as worker:
            worker.until(lambda e: isinstance(e, PacketSeen))
            times.append((worker.attached - worker.started, time.monotonic() - worker.started))
            stopping = time.monotonic()
            worker.stop()
            stopped = time.monotonic() - stopping
        load.wait()
    attached, first = min(t[0] for t in times), min(t[1] for t in times)
    print(
        f"start-up         attached after {attached:.2f} s, first event after {first:.2f} s, stopped in {stopped:.2f} s"
    )


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("this benchmark loads BPF programs and makes network namespaces: run it as root")
    with veth_path():
        start_up()
        hook_cost()
        ratios()
        losses()
