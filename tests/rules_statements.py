"""Single statements of iptables' and nft's manuals, each a small ruleset: the kernel says what it does with packets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kubectl_genainet.model.packet import Protocol
from tests.rules_fuzz import Count, Difference, judged, loaded, make_sets
from tests.rules_sets import IPSETS
from tests.rules_texts import NFT_SETS
from tests.rules_wire import Flow, Wire

_DATA = Path(__file__).parent / "data" / "statements"
_CHAINS = {
    "b": "",
    "a": "",
    "raw": "type filter hook prerouting priority raw;",
    "mangle": "type filter hook prerouting priority mangle;",
    "pre": "type nat hook prerouting priority dstnat;",
    "onward": "type filter hook forward priority filter;",
    "inp": "type filter hook input priority filter;",
    "out": "type filter hook output priority filter;",
    "outnat": "type nat hook output priority -100;",
    "post": "type nat hook postrouting priority srcnat;",
    "late": "type filter hook postrouting priority 200;",
}
_FLOWS = (
    ("10.7.0.2", "10.96.0.1", 80, Protocol.TCP),
    ("10.7.0.3", "10.8.0.2", 443, Protocol.TCP),
    ("10.7.0.2", "10.8.0.3", 53, Protocol.UDP),
    ("10.7.0.3", "10.96.0.2", 80, Protocol.UDP),
    ("10.7.0.2", "10.7.0.1", 80, Protocol.TCP),
    ("10.7.0.1", "10.96.0.1", 53, Protocol.UDP),
    ("10.7.0.1", "10.7.0.1", 443, Protocol.TCP),
    ("10.7.0.3", "10.96.0.1", 8, Protocol.ICMP),
)


def _statements(file: str) -> list[list[tuple[str, str]]]:
    """The rules of each line, as (chain or table, rule)."""
    lines = [line for line in (_DATA / file).read_text().splitlines() if line and not line.startswith("#")]
    found = []
    for line in lines:
        parts = [rule.partition(": ") for rule in line.split(" // ")]
        found.append([(where, rule) for where, _, rule in parts])
    return found


def iptables_texts(file: str = "iptables.txt") -> Iterator[str]:
    for rules in _statements(file):
        text = ""
        for table in dict.fromkeys(where for where, _ in rules):
            text += f"*{table}\n" + "".join(f"-A {rule}\n" for where, rule in rules if where == table) + "COMMIT\n"
        yield text


def nft_texts(file: str = "nft.txt") -> Iterator[str]:
    for rules in _statements(file):
        blocks = []
        for name, hook in _CHAINS.items():
            body = "".join(f"\t\t{rule}\n" for where, rule in rules if where == name)
            if body or name in "ab":
                blocks.append(f"\tchain {name} {{\n\t\t{hook}\n{body}\t}}\n")
        text = f"table ip st {{\n{NFT_SETS}{''.join(blocks)}}}\n"
        of_device = "".join(f"\t\t{rule}\n" for where, rule in rules if where == "dev")
        if of_device:
            hook = "type filter hook ingress device cli0 priority 0;"
            text += f"table netdev sd {{\n\tchain dev {{\n\t\t{hook}\n{of_device}\t}}\n}}\n"
        yield text


def checked(wire: Wire, count: Count) -> Iterator[Difference]:
    """Every statement with every flow, each in one of the forms that it may have: those that are judged wrongly."""
    every = [(("iptables-nft", "iptables-legacy")[n % 2], text) for n, text in enumerate(iptables_texts())]
    yield from _checked(wire, [*every, *(("nft", text) for text in nft_texts())], count)


def open_by_nature(wire: Wire) -> Iterator[tuple[str, Count, list[Difference]]]:
    """The statements that nobody can answer from rules and a flow: each with what was said of its flows, and what was wrong."""
    every = [("iptables-nft", text) for text in iptables_texts("iptables-unknown.txt")]
    for one in (*every, *(("nft", text) for text in nft_texts("nft-unknown.txt"))):
        count = Count()
        yield one[1], count, list(_checked(wire, [one], count))


def _checked(wire: Wire, every: list[tuple[str, str]], count: Count) -> Iterator[Difference]:
    sets = make_sets(wire, IPSETS)
    for number, (variant, text) in enumerate(every):
        try:
            ruleset = loaded(wire, variant, text, sets, as_json=number % 2 == 0)
        except RuntimeError as error:
            count.refused += 1
            count.reasons.append(f"{error}\n{text}")
            continue
        flows = [Flow(src, wire.port(), dst, dport, protocol) for src, dst, dport, protocol in _FLOWS]
        for flow, did, ways in judged(wire, ruleset, flows, count):
            yield Difference(variant, text, number % 2 == 0, flow, did, tuple(sorted(ways)))
        if "-j SET" in text:  # the packets are in the sets now, or no longer
            sets = make_sets(wire, IPSETS)
