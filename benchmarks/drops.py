"""What counting drops costs: a UDP flood that an iptables rule drops, 200,000 packets a second and as fast as it goes;
throughput with the probe off and on, beside a bpftrace program that counts the same by the same key; CPU and memory of the
agent, events lost; and whether every packet was counted."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks._bpftrace import bpftrace
from benchmarks._veth import CLIENT, ROUTER, SERVER_IP, inside, veth_path
from benchmarks.trace import Worker, nothing, program_times, run_time_statistics
from kubectl_genainet.model.events import Bye, DropCount, Event, PacketDropped

RATE = 200_000
ROUNDS = 3
SECONDS = 3
PORT = 9

# tuple, reason, location and namespace, as the probe counts them.
BPFTRACE = """
tracepoint:skb:kfree_skb {
  $skb = (struct sk_buff *)args->skbaddr;
  $ip = (struct iphdr *)($skb->head + $skb->network_header);
  $udp = (struct udphdr *)($skb->head + $skb->network_header + 20);
  @[$ip->saddr, $ip->daddr, $udp->source, $udp->dest, $ip->protocol, args->reason, args->location, $skb->dev->nd_net.net->ns.inum] = count();
}
"""  # noqa: E501


def flood(rate: int = 0, seconds: float = SECONDS) -> tuple[int, float, float]:
    """(datagrams sent, seconds, CPU seconds of the senders) of one run by a process a core; `rate` 0 is as fast as it goes,
    each datagram sent on its own. For a rate they are cut from larger ones, so that the sender is not what is measured."""
    senders = os.cpu_count() or 1
    command = ["nsenter", f"--net=/run/netns/{CLIENT}", sys.executable, "-m", "benchmarks._flood", SERVER_IP, str(PORT)]
    segments = "32" if rate else "1"
    running = [
        subprocess.Popen([*command, str(seconds), str(rate / senders), segments], stdout=subprocess.PIPE, text=True)
        for _ in range(senders)
    ]
    results = [process.communicate(timeout=seconds + 60)[0].split() for process in running]
    sent, took, cpu = zip(*results, strict=True)
    return sum(map(int, sent)), max(map(float, took)), sum(map(float, cpu))


@contextmanager
def counting() -> Iterator[Worker]:
    worker = Worker((), probe="drops")
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.stop()


def rule_packets() -> int:
    """What the rule itself has counted: the truth that the probe's count is held against."""
    command = ["nsenter", f"--net=/run/netns/{ROUTER}", "iptables", "-w", "-t", "raw", "-nvxL", "PREROUTING"]
    text = subprocess.run(command, check=True, capture_output=True, timeout=20, text=True).stdout
    found = re.search(r"^\s*(\d+)\s+\d+\s+DROP", text, re.MULTILINE)
    return int(found[1]) if found else 0


def ratios() -> None:
    """Datagrams, unpaced, a second and a CPU second of their senders (which holds on a busy machine too) in the three
    states; the states take turns, so that drift hits all alike."""
    results: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for name, state in (("off", nothing), ("drops", counting), ("bpftrace", lambda: bpftrace(BPFTRACE))):
            with state():
                sent, took, cpu = flood()
                results.setdefault(name, []).append((sent / took, sent / cpu))
    for name, values in results.items():
        pairs = [value[1] / base[1] for value, base in zip(values, results["off"], strict=True)]
        per_second, per_cpu = (statistics.median(v[i] for v in values) for i in (0, 1))
        print(
            f"{name:10} unpaced {per_second:>10,.0f} drops/s, {per_cpu:>10,.0f} a CPU second   ratio to off a CPU second: median "
            f"{statistics.median(pairs):.3f}, {min(pairs):.3f} to {max(pairs):.3f}"
        )


def hook_cost() -> None:
    """ns a run of the state's own programs, from the kernel's run-time statistics."""
    for name, state in (("drops", counting), ("bpftrace", lambda: bpftrace(BPFTRACE))):
        with run_time_statistics():
            others = program_times().keys()
            with state():
                flood(RATE)
                mine = {p: found for p, found in program_times().items() if p not in others}
        for program, (ns, runs) in mine.items():
            if runs > 1000:
                print(f"{name:10} {ns / runs:6.0f} ns a run of {program.split()[0]}, {runs} runs")


def account() -> None:
    """At RATE: what the senders reach in the three states, the agent's CPU and memory, its count beside the rule's own."""
    sent, took, _ = flood(RATE, 6)
    off = sent / took
    print(f"off        {off:,.0f} drops/s of {RATE:,}")
    before = rule_packets()
    with counting() as worker:
        cpu, start = worker.cpu_s(), time.monotonic()
        sent, took, _ = flood(RATE, 8)
        share = (worker.cpu_s() - cpu) / (time.monotonic() - start)
        pss, dirty = worker.memory()
        events: list[Event] = worker.stop()
    dropped = rule_packets() - before
    counted = sum(e.packets for e in events if isinstance(e, DropCount) and e.flow.dport == PORT)
    samples = sum(isinstance(e, PacketDropped) and e.flow.dport == PORT for e in events)
    bye = next(e for e in events if isinstance(e, Bye))
    print(
        f"drops      {sent / took:,.0f} drops/s, ratio {sent / took / off:.3f}; the rule dropped {dropped}, the probe counted "
        f"{counted}; {samples} samples of them, events emitted {bye.emitted}, lost {bye.lost}; agent CPU {share:.1%} of a core; "
        f"memory {pss:.0f} MB proportional, {dirty:.0f} MB private"
    )
    with bpftrace(BPFTRACE):
        sent, took, _ = flood(RATE, 6)
    print(f"bpftrace   {sent / took:,.0f} drops/s, ratio {sent / took / off:.3f}")


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("this benchmark loads BPF programs and makes network namespaces: run it as root")
    with veth_path():
        inside(CLIENT, "ethtool", "-K", "eth0", "tx-udp-segmentation", "off")
        # In raw, so that the drop is a large part of the packet's cost: before connection tracking and routing.
        rule = ["iptables", "-w", "-t", "raw", "-I", "PREROUTING", "-p", "udp", "--dport", str(PORT), "-j", "DROP"]
        subprocess.run(["nsenter", f"--net=/run/netns/{ROUTER}", *rule], check=True, capture_output=True, timeout=20)
        account()
        hook_cost()
        ratios()
