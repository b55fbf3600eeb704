"""What counting drops costs: a UDP flood that an iptables rule drops, about 200,000 packets a second; throughput with the
probe off and on, beside a bpftrace program that counts the same by the same key; CPU and memory of the agent, events lost;
and whether every packet was counted."""

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
from benchmarks._veth import CLIENT, SERVER, SERVER_IP, veth_path
from benchmarks.trace import Worker, nothing, program_times, run_time_statistics
from kubectl_genainet.model.events import Bye, DropCount, Event, PacketDropped

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


def flood(rate: int = 0, seconds: float = SECONDS) -> tuple[int, float]:
    """(datagrams sent, seconds) of one run; `rate` 0 is as fast as it goes."""
    command = ["nsenter", f"--net=/run/netns/{CLIENT}", sys.executable, "-m", "benchmarks._flood", SERVER_IP, str(PORT)]
    done = subprocess.run(
        [*command, str(seconds), str(rate)], check=True, capture_output=True, timeout=seconds + 30, text=True
    )
    sent, took = done.stdout.split()
    return int(sent), float(took)


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
    command = ["nsenter", f"--net=/run/netns/{SERVER}", "iptables", "-nvxL", "INPUT"]
    text = subprocess.run(command, check=True, capture_output=True, timeout=20, text=True).stdout
    found = re.search(r"^\s*(\d+)\s+\d+\s+DROP", text, re.MULTILINE)
    return int(found[1]) if found else 0


def ratios() -> None:
    """Datagrams a second, unpaced, in the three states; the states take turns, so that drift hits all alike."""
    results: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, state in (("off", nothing), ("drops", counting), ("bpftrace", lambda: bpftrace(BPFTRACE))):
            with state():
                sent, took = flood()
                results.setdefault(name, []).append(sent / took)
    off = statistics.median(results["off"])
    for name, values in results.items():
        pairs = [value / base for value, base in zip(values, results["off"], strict=True)]
        print(
            f"{name:10} {statistics.median(values):>10,.0f} drops/s   ratio to off: median "
            f"{statistics.median(values) / off:.3f}, in pairs {min(pairs):.3f} to {max(pairs):.3f}"
        )


def hook_cost() -> None:
    """ns a drop, from the kernel's own run-time statistics."""
    for name, state in (("drops", counting), ("bpftrace", lambda: bpftrace(BPFTRACE))):
        with state(), run_time_statistics():
            before = program_times()
            flood(200_000)
            after = program_times()
        best = max(after, key=lambda p: after[p][1] - before.get(p, (0, 0))[1])
        ns, runs = (a - b for a, b in zip(after[best], before.get(best, (0, 0)), strict=True))
        print(f"{name:10} {ns / max(1, runs):6.0f} ns a run of {best.split()[0]}, {runs} runs")


def account() -> None:
    """200,000 drops a second: the agent's CPU and memory, and its count beside the rule's own."""
    before = rule_packets()
    with counting() as worker:
        cpu, start = worker.cpu_s(), time.monotonic()
        sent, took = flood(200_000, 8)
        share = (worker.cpu_s() - cpu) / (time.monotonic() - start)
        pss, dirty = worker.memory()
        events: list[Event] = worker.stop()
    dropped = rule_packets() - before
    counted = sum(e.packets for e in events if isinstance(e, DropCount) and e.flow.dport == PORT)
    samples = sum(isinstance(e, PacketDropped) and e.flow.dport == PORT for e in events)
    bye = next(e for e in events if isinstance(e, Bye))
    print(
        f"account    {sent / took:,.0f} datagrams/s; the rule dropped {dropped}, the probe counted {counted}; "
        f"{samples} samples of them, events emitted {bye.emitted}, lost {bye.lost}; agent CPU {share:.1%} of a core; memory "
        f"{pss:.0f} MB proportional, {dirty:.0f} MB private"
    )


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("this benchmark loads BPF programs and makes network namespaces: run it as root")
    with veth_path():
        rule = ["iptables", "-I", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP"]
        subprocess.run(["nsenter", f"--net=/run/netns/{SERVER}", *rule], check=True, capture_output=True, timeout=20)
        account()
        hook_cost()
        ratios()
