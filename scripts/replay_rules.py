"""Saved rulesets of others, loaded into a network namespace, and real packets through them: kernel beside evaluator. Needs root.

python -m scripts.replay_rules [--flows N] [--seed N] FILE...

Two device names of each dump become the two links of the test's node; addresses and ports of the flows are those that the
dump names. A ruleset that this kernel's tools refuse is counted and left out.
"""

from __future__ import annotations

import argparse
import ipaddress
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import dumps_of
from tests.rules_fuzz import Count, Difference, judged, loaded, make_sets, smallest
from tests.rules_wire import CLIENTS, NODE_IPS, Flow, Wire, run

_ADDRESS = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3})(?:/(\d{1,2}))?(?![\d.])")
_BACKEND = re.compile(r"(?:to-destination|to-source|dnat to|snat to|dnat ip to|to:)\s*(\d+\.\d+\.\d+\.\d+)")
_PORT = re.compile(r"(?:dpts?:|dport[s]? |sport )\{?\s*(\d+)")
_IPTABLES_DEVICE = re.compile(r"-([io]) ([\w.@+-]+)")
_NFT_DEVICE = re.compile(r"[io]if(?:name)? (?:!= )?\"([\w.@*-]+)\"")


def texts_of(path: Path) -> Iterator[tuple[str, str, str]]:
    """(variant, text, ipsets as `ipset save` has them) of every IPv4 ruleset of a file that a tool can load."""
    try:
        dumps = dumps_of(path.read_text(errors="replace"), name=str(path))
    except InputError as error:
        print(f"{path.name}: {error}")
        return
    saved = "".join(dump.text for dump in dumps if dump.source.startswith("iptables"))
    if saved:
        yield "iptables-nft", saved, "".join(dump.text for dump in dumps if dump.source == "ipset")
    for dump in dumps:
        if dump.source == "nft" and not dump.text.lstrip().startswith("{"):
            yield "nft", dump.text, ""


def without_limits(text: str) -> str:
    """The text with room in its limits of rate, which the flows of one trial would use up: that they have it is assumed."""
    text = re.sub(r"--limit \S+(?: --limit-burst \d+)?", "--limit 10000/sec --limit-burst 10000", text)
    return re.sub(r"limit rate (?!over)\S+(?: burst \d+ packets)?", "limit rate 10000/second burst 10000 packets", text)


def with_our_devices(text: str, chance: random.Random) -> str:
    """The text with two of its devices named as the links of the test's node."""
    ins = [name for side, name in _IPTABLES_DEVICE.findall(text) if side == "i"] + _NFT_DEVICE.findall(text)
    outs = [name for side, name in _IPTABLES_DEVICE.findall(text) if side == "o"] + _NFT_DEVICE.findall(text)
    names = [chance.choice(ins) if ins else "", chance.choice(outs) if outs else ""]
    for name, ours in zip(names, ("cli0", "srv0"), strict=True):
        if name and name not in ("lo", "cli0", "srv0") and not name.endswith(("+", "*")):
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", ours, text)
    return text


def flows_of(text: str, wire: Wire, chance: random.Random, count: int) -> list[Flow]:
    """Flows between addresses that the text names, each routed to its side of the node."""
    backends = set(_BACKEND.findall(text))
    named = {_one_of(address, length, chance) for address, length in _ADDRESS.findall(text)} - {""}
    pool = sorted(named - backends - set(NODE_IPS))
    chance.shuffle(pool)
    half = min(len(pool) // 2, 8)
    sources = [*CLIENTS, *pool[:half]]
    destinations = ["10.8.0.2", NODE_IPS[0], *pool[half : half + 12], *sorted(backends - set(sources))[:4]]
    ports = sorted({int(port) for port in _PORT.findall(text) if int(port) < 65536} | {53, 80, 443, 10250})
    for source in pool[:half]:
        wire.inside(wire.node, "ip", "route", "replace", source, "via", CLIENTS[0], "dev", "cli0")
    for destination in destinations:
        if destination not in NODE_IPS:
            wire.inside(wire.node, "ip", "route", "replace", destination, "via", "10.8.255.2", "dev", "srv0")
    wire.inside(wire.node, "ip", "route", "replace", "default", "via", "10.8.255.2")
    flows = []
    for _ in range(count):
        protocol = chance.choice((Protocol.TCP, Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.UDP, Protocol.ICMP))
        dport = 8 if protocol is Protocol.ICMP else chance.choice(ports)
        source = chance.choice((*sources, NODE_IPS[0]))
        flows.append(Flow(source, wire.port(), chance.choice(destinations), dport, protocol))
    return flows


def _one_of(address: str, length: str, chance: random.Random) -> str:
    """An address of a network, if packets can be sent to it."""
    try:
        network = ipaddress.IPv4Network(f"{address}/{length or 32}", strict=False)
    except ValueError:
        return ""
    one = network[min(chance.randrange(1, 250), network.num_addresses - 1)] if network.num_addresses > 1 else network[0]
    usable = not (one.is_multicast or one.is_loopback or one.is_reserved or one.is_unspecified or one.packed[0] == 0)
    return str(one) if usable and not str(one).endswith(".255") else ""


def replayed(wire: Wire, path: Path, chance: random.Random, flow_count: int, count: Count) -> Iterator[Difference]:
    for variant, saved, ipsets in texts_of(path):
        text = without_limits(with_our_devices(saved, chance))
        try:
            ruleset = loaded(wire, variant, text, make_sets(wire, ipsets))
        except RuntimeError as error:
            count.refused += 1
            print(f"{path.name}: {variant} refused: {str(error)[:160]}")
            continue
        flows = flows_of(text, wire, chance, flow_count)
        for flow, did, ways in judged(wire, ruleset, flows, count):
            yield Difference(variant, text, False, flow, did, tuple(sorted(ways)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--flows", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smallest", action="store_true", help="print the rules that each difference needs")
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args(arguments)
    chance, total, wrong = random.Random(given.seed), Count(), 0
    for path in given.files:
        with Wire() as wire:
            run("nsenter", f"--net=/run/netns/{wire.servers}", "ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")
            count = Count()
            for difference in replayed(wire, path, chance, given.flows, count):
                wrong += 1
                print(f"{path.name}: {difference.flow} did {difference.did}, said {', '.join(difference.said)}")
                if given.smallest:
                    print(smallest(wire, difference))
        unknown = Counter(count.reasons).most_common(4)
        print(f"{path.name}: {count.flows} flows, {count.unknown} unknown {unknown or ''}")
        total.flows += count.flows
        total.unknown += count.unknown
        total.refused += count.refused
    print(f"{total.flows} flows, {wrong} wrong, {total.unknown} unknown, {total.refused} rulesets refused")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
