"""One line of iptables-save compiled to checks and actions.

Sources: iptables-extensions(8); xtables' own save formats. An extension that is not in the tables below makes a
check that can't be answered, under the extension's name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from functools import lru_cache

from kubectl_genainet.proxy.evaluator import checks
from kubectl_genainet.proxy.evaluator.checks import PROTOCOLS, Getter
from kubectl_genainet.proxy.evaluator.ir import (
    ALL_BITS,
    Chain,
    Check,
    Rule,
    SetLookup,
    State,
    ipv4_number,
)
from kubectl_genainet.proxy.iptables.target import actions_of, value_and_mask


def split_words(text: str) -> list[str]:
    """Words of a rule, quoted ones (with \\" inside) as one. A hundred times faster than shlex on these lines."""
    if '"' not in text:
        return text.split()
    words: list[str] = []
    rest = text
    while True:
        head, quote, rest = rest.partition('"')
        words += head.split()
        if not quote:
            return words
        inner, quote, rest = rest.partition('"')
        while inner.endswith("\\") and quote:
            more, quote, rest = rest.partition('"')
            inner = f'{inner[:-1]}"{more}'
        words.append(inner.replace("\\\\", "\\"))


@lru_cache(maxsize=4096)
def network(text: str) -> tuple[int, int, int]:
    """(network, mask, family) of "10.0.0.0/8", "10.0.0.1" or "10.0.0.0/255.0.0.0"."""
    if text.endswith("/32"):
        return ipv4_number(text[:-3]), ALL_BITS, 4
    net = ipaddress.ip_network(text, strict=False)
    return int(net.network_address), int(net.netmask), net.version


def ports(text: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    return int(low or 0), int(high or 65535) if colon else int(low)


class Compiler:
    """Compiles the rules of one table. `chains` tells user chains from targets, `sets` are the node's ipsets."""

    def __init__(self, family: int, chains: Mapping[str, Chain], sets: Mapping[str, SetLookup]) -> None:
        self.family, self.chains, self.sets = family, chains, sets

    def rule(self, chain: Chain, number: int, raw: str) -> Rule:
        rule = Rule(chain, number, raw)
        words = split_words(raw)
        start = 2 if words[0] == "-A" else 3
        reader = _Reader(words[start:])
        found: list[tuple[Check, str]] = []
        target: list[str] = []
        try:
            self._matches(reader, rule, found, target)
            rule.actions = actions_of(target, self.chains)
        except (ValueError, IndexError) as error:
            found.append((checks.always_unknown, f"rule that can't be read ({error})"))
        rule.checks, rule.labels = tuple(c for c, _ in found), tuple(label for _, label in found)
        if "--dst-type LOCAL" in rule.labels:
            rule.by_destination = False  # of addresses outside the node, it tells none apart
        rule.finish()
        return rule

    def _matches(self, reader: _Reader, rule: Rule, found: list[tuple[Check, str]], target: list[str]) -> None:
        negated, handled = False, True
        words, count = reader.words, len(reader.words)
        while reader.at < count:
            word = words[reader.at]
            reader.at += 1
            if word == "-m":
                if not handled:
                    found.append((checks.always_unknown, f"match {reader.module}"))
                reader.module = reader.next()
                handled = reader.module in _SILENT_MODULES
                continue
            if word == "--comment":
                reader.at += 1
                continue
            if word == "!":
                negated = True
                continue
            if word in ("-j", "-g"):
                target += words[reader.at - 1 :]
                break
            option = _OPTIONS.get(word)
            if option is None:
                reader.skip_values()
                found.append((checks.always_unknown, f"match {reader.module} {word}".replace("  ", " ")))
                handled = True
            else:
                start = reader.at - 1
                rule.by_destination |= word in _BY_DESTINATION
                check = option(self, reader, rule, negated)
                if check is not None:
                    label = ("! " if negated else "") + " ".join(reader.words[start : reader.at])
                    found.append((checks.negate(check) if negated else check, label))
                handled = True
            negated = False
        if not handled:
            found.append((checks.always_unknown, f"match {reader.module}"))


class _Reader:
    __slots__ = ("at", "module", "words")

    def __init__(self, words: list[str]) -> None:
        self.words, self.at, self.module = words, 0, ""

    def __bool__(self) -> bool:
        return self.at < len(self.words)

    def next(self) -> str:
        self.at += 1
        return self.words[self.at - 1]

    def peek(self) -> str:
        return self.words[self.at] if self else ""

    def skip_values(self) -> None:
        while self and not self.peek().startswith("-") and self.peek() != "!":
            self.at += 1


Option = Callable[[Compiler, _Reader, Rule, bool], Check | None]


def _source(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    return checks.source_in(*network(r.next()))


def _destination(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    net, mask, family = network(r.next())
    if not negated and mask == (ALL_BITS if family == 4 else (1 << 128) - 1):
        rule.dst = net
    else:
        rule.by_destination = True
    return checks.destination_in(net, mask, family)


def _protocol(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check | None:
    name = r.next()
    number = PROTOCOLS[name] if name in PROTOCOLS else int(name)
    return checks.protocol_is(number) if number else None


def _dport(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    low, high = ports(r.next())
    if low == high and not negated:
        rule.dport = low
    return checks.dport_between(low, high)


def _sport(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    return checks.sport_between(*ports(r.next()))


def _multiport(*kinds: str) -> Option:
    def option(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
        ranges = [ports(part) for part in r.next().split(",")]
        makers = {"dport": checks.dport_between, "sport": checks.sport_between}
        return any_of([makers[kind](*bounds) for kind in kinds for bounds in ranges])

    return option


def any_of(options: list[Check]) -> Check:
    if len(options) == 1:
        return options[0]

    def check(s: State) -> bool | None:
        results = [option(s) for option in options]
        return True if True in results else None if None in results else False

    return check


def _in_device(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    return checks.device_is(r.next(), out=False, wildcard="+")


def _out_device(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    return checks.device_is(r.next(), out=True, wildcard="+")


def _skip(count: int) -> Option:
    """An option that decides nothing: `count` values are skipped."""

    def option(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> None:
        r.at += count

    return option


def _connmark_or_mark(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    value = value_and_mask(r.next())
    return checks.connmark_is(*value) if r.module == "connmark" else checks.mark_is(*value)


def _ct_state(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    return checks.ct_state_in(frozenset(r.next().split(",")))


def _ct_status(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    only_dnat = r.next() == "DNAT"
    return lambda s: s.dnat if only_dnat and s.ct == "NEW" else None


def _ct_original_destination(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    net, mask, _ = network(r.next())
    return lambda s: s.orig_dst & mask == net


def _ct_original_dport(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    low, high = ports(r.next())
    return lambda s: None if s.orig_dport is None else low <= s.orig_dport <= high


def _address_type(side: Callable[[str], Check]) -> Option:
    def option(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
        return any_of([side(kind) for kind in r.next().split(",")])

    return option


def _probability(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> None:
    rule.probability = float(r.next())


def _every(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> None:
    rule.probability = 1.0 / int(r.next())  # nth mode: over many packets


def _recent_seen(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    # A client's first connection: it is in no list yet. kube-proxy's session affinity asks this.
    return checks.never


def _match_set(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    name, flags = r.next(), r.next().split(",")
    members = c.sets.get(name)
    if members is None:
        return checks.always_unknown
    getters: list[Getter] = []
    for position, flag in enumerate(flags[: members.width]):
        getters += _set_field(members.kind, position, flag)
    return checks.in_set(tuple(getters), members)


def _set_field(kind: str, position: int, flag: str) -> list[Getter]:
    """Getters for one component of an ipset's type: an address, or protocol and port."""
    parts = kind.partition(":")[2].split(",")
    if position < len(parts) and parts[position] == "port":
        return [checks.get_protocol, checks.get_dport if flag == "dst" else checks.get_sport]
    if position < len(parts) and parts[position] == "iface":
        return [checks.get_out_device if flag == "dst" else checks.get_in_device]
    return [checks.get_destination if flag == "dst" else checks.get_source]


def _bridged(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    return lambda s: s.bridged


def _tcp_flags(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    mask, value = set(r.next().split(",")), set(r.next().split(","))
    # The first packet of a connection carries SYN alone; of later ones the flags are not known.
    matches = (mask & {"SYN"} if "ALL" not in mask else {"SYN"}) == value - {"NONE"}
    return lambda s: matches if s.ct == "NEW" else None


def _syn(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    return lambda s: True if s.ct == "NEW" else None


def _icmp_type(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
    """As iptables-save writes it: "3/4", "8", "any" (255, iptables-extensions(8))."""
    kind, _, code = r.next().partition("/")
    if not kind.isdigit():
        return (lambda s: True) if kind == "any" else checks.always_unknown
    return checks.icmp_is(int(kind), int(code or 0), int(code or 255))


def _ip_range(side: Getter) -> Option:
    def option(c: Compiler, r: _Reader, rule: Rule, negated: bool) -> Check:
        low, _, high = r.next().partition("-")
        first, last = int(ipaddress.ip_address(low)), int(ipaddress.ip_address(high or low))

        def check(s: State) -> bool | None:
            value = side(s)
            return None if value is None else first <= value <= last

        return check

    return option


_SILENT_MODULES = {
    "comment",
    "tcp",
    "udp",
    "sctp",
    "recent",
    "mark",
    "conntrack",
    "statistic",
    "multiport",
    "icmp",
    "icmp6",
}
_OPTIONS: dict[str, Option] = {
    "-s": _source,
    "--source": _source,
    "--src": _source,
    "-d": _destination,
    "--destination": _destination,
    "--dst": _destination,
    "-p": _protocol,
    "--protocol": _protocol,
    "--proto": _protocol,
    "--dport": _dport,
    "--destination-port": _dport,
    "--sport": _sport,
    "--source-port": _sport,
    "--dports": _multiport("dport"),
    "--sports": _multiport("sport"),
    "--ports": _multiport("sport", "dport"),
    "-i": _in_device,
    "-o": _out_device,
    "-c": _skip(2),
    "--mark": _connmark_or_mark,
    "--ctstate": _ct_state,
    "--state": _ct_state,
    "--ctstatus": _ct_status,
    "--ctorigdst": _ct_original_destination,
    "--ctorigdstport": _ct_original_dport,
    "--src-type": _address_type(checks.source_type_is),
    "--dst-type": _address_type(checks.destination_type_is),
    "--mode": _skip(1),
    "--probability": _probability,
    "--every": _every,
    "--packet": _skip(1),
    "--set": _skip(0),
    "--rcheck": _recent_seen,
    "--update": _recent_seen,
    "--remove": _recent_seen,
    "--seconds": _skip(1),
    "--reap": _skip(0),
    "--hitcount": _skip(1),
    "--rttl": _skip(0),
    "--name": _skip(1),
    "--mask": _skip(1),
    "--rsource": _skip(0),
    "--rdest": _skip(0),
    "--match-set": _match_set,
    "--tcp-flags": _tcp_flags,
    "--icmp-type": _icmp_type,
    "--icmpv6-type": _icmp_type,
    "--syn": _syn,
    "--physdev-is-in": _bridged,
    "--src-range": _ip_range(checks.get_source),
    "--dst-range": _ip_range(checks.get_destination),
}


_BY_DESTINATION = {
    "--dport",
    "--destination-port",
    "--dports",
    "--ports",
    "--dst-range",
    "--match-set",
    "-o",
}
