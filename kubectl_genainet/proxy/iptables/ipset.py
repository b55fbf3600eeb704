"""`ipset list` and `ipset save` text: the sets that kube-proxy's IPVS mode and policy enforcers match against.

Source: ipset(8); net/netfilter/ipset. A member that can't be read, and members that are missing, leave it open whether
an address is in the set.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from kubectl_genainet.model.units import whole_number
from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.conditions import Getter
from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.evaluator.packet.state import Condition, State
from kubectl_genainet.proxy.evaluator.sets import SetLookup
from kubectl_genainet.proxy.iptables.reader import network

Bounds = list[tuple[object, object]]


class IpSet(msgspec.Struct, frozen=True):
    """One set. `members` are as listed, without options such as timeout; `type` is ipset's ("hash:ip,port").

    `nomatch` are the members that are exceptions, `options` the words of its header ("family inet netmask 24"),
    `unread` what of it is missing or can't be read.
    """

    name: str
    type: str
    members: tuple[str, ...]
    nomatch: tuple[str, ...] = ()
    wildcards: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    unread: str = ""

    def option(self, name: str) -> str:
        index = self.options.index(name) + 1 if name in self.options else len(self.options)
        return self.options[index] if index < len(self.options) else ""

    def lookup(self) -> SetLookup:
        """The set as the evaluation asks it."""
        kinds = self.type.partition(":")[2].split(",")
        lookup_ = SetLookup(self.type, len(kinds))
        lookup_.unread, lookup_.family = self.unread, 6 if self.option("family") == "inet6" else 4
        if self.type.startswith("bitmap:port") or self.type == "list:set":
            lookup_.family = 0
        if self.type == "list:set":
            return lookup_
        if netmask := self.option("netmask") or self.option("bitmask"):
            lookup_.mask = _mask(netmask, lookup_.family)
        for member in self._with_protocols():
            try:
                bounds = _bounds(kinds, member.split(","), wildcard=member in self.wildcards)
            except (ValueError, KeyError):
                lookup_.unread = lookup_.unread or f"member {member} of set {self.name} can't be read"
                continue
            if member in self.nomatch:
                lookup_.exceptions.append(tuple(bounds))
            elif all(low == high for low, high in bounds):
                lookup_.exact[tuple(low for low, _ in bounds)] = True
            else:
                lookup_.intervals.append((tuple(bounds), True))
        return lookup_

    def _with_protocols(self) -> Iterator[str]:
        """The members; those of bitmap:port, which have none, for each protocol that the kernel asks it for.

        Source: ip_set_get_ip_port, net/netfilter/ipset/ip_set_getport.c.
        """
        for member in self.members:
            if self.type == "bitmap:port":
                yield from (f"tcp:{member}", f"udp:{member}")
            else:
                yield member


def lookups(sets: tuple[IpSet, ...]) -> dict[str, SetLookup]:
    """All sets by name, lists of sets with their members in place."""
    by_name = {s.name: s.lookup() for s in sets}
    for ip_set in sets:
        if ip_set.type != "list:set":
            continue
        for member in ip_set.members:
            if member in by_name:
                by_name[ip_set.name].sets.append(by_name[member])
            else:
                by_name[ip_set.name].unread = f"set {member} of list {ip_set.name} is not in the dump"
    return by_name


def _mask(text: str, family: int) -> int:
    prefix = whole_number(text)
    if prefix is None:
        return int(ipaddress.ip_address(text))
    width = 32 if family == 4 else 128
    return ((1 << width) - 1) ^ ((1 << (width - prefix)) - 1)


def _bounds(kinds: list[str], parts: list[str], *, wildcard: bool) -> Bounds:
    """Low and high of each component; a port ("tcp:80") is two components, protocol and port."""
    bounds: Bounds = []
    for kind, part in zip(kinds, parts, strict=True):
        if kind == "port":
            protocol, colon, port = part.partition(":")
            number = (PROTOCOLS[protocol] if not protocol.isdigit() else int(protocol)) if colon else 6
            low, _, high = (port if colon else protocol).partition("-")
            bounds += [(number, number), (int(low), int(high or low))]
        elif kind == "iface":
            # "physdev:NAME" stays as it is: no rule asks for a bridge's port (hash_netiface4_kadt, ip_set_hash_netiface.c).
            bounds.append((part, part + "\U0010ffff") if wildcard else (part, part))
        elif kind == "mac":
            bounds.append((part, part))
        elif kind == "mark":
            bounds.append((int(part, 0), int(part, 0)))
        elif "-" in part:
            first, _, last = part.partition("-")
            bounds.append((int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))))
        else:
            net, mask, family = network(part)
            full = (1 << (32 if family == 4 else 128)) - 1
            bounds.append((net, net | (~mask & full)))
    return bounds


class _Reading:
    """A set while its lines are read."""

    def __init__(self, name: str, kind: str = "", options: tuple[str, ...] = ()) -> None:
        self.name, self.kind, self.options = name, kind, options
        self.members: list[str] = []
        self.nomatch: list[str] = []
        self.wildcards: list[str] = []
        self.entries: int | None = None
        self.listed = False  # "Members:" was seen, or the set came from `ipset save`

    def add(self, tokens: list[str]) -> None:
        self.members.append(tokens[0])
        if "nomatch" in tokens:
            self.nomatch.append(tokens[0])
        if "wildcard" in tokens:
            self.wildcards.append(tokens[0])

    def done(self) -> IpSet:
        unread = ""
        if not self.kind or not self.listed:
            unread = f"set {self.name} is cut short: it has no members in the dump"
        elif self.entries is not None and self.entries > len(self.members):
            unread = f"set {self.name} is cut short: {len(self.members)} of {self.entries} entries are in the dump"
        return IpSet(
            self.name,
            self.kind,
            tuple(self.members),
            tuple(self.nomatch),
            tuple(self.wildcards),
            self.options,
            unread,
        )


def parse_ipset(text: str) -> tuple[IpSet, ...]:
    """The sets of an `ipset list` or `ipset save` text, in order."""
    readings: dict[str, _Reading] = {}
    current: _Reading | None = None
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        tokens = line.split()
        if key == "Name":
            current = readings[value.strip()] = _Reading(value.strip())
        elif tokens[:1] == ["create"] and len(tokens) > 2:
            made = readings[tokens[1]] = _Reading(tokens[1], tokens[2], tuple(tokens[3:]))
            made.listed = True
        elif tokens[:1] == ["add"] and len(tokens) > 2 and tokens[1] in readings:
            readings[tokens[1]].add(tokens[2:])
        elif current is None:
            continue
        elif line.startswith("Members:"):
            current.listed = True
        elif current.listed and tokens:
            current.add(tokens)
        elif key == "Type":
            current.kind = value.strip()
        elif key == "Header":
            current.options = tuple(value.split())
        elif key == "Number of entries":
            current.entries = whole_number(value)
    return tuple(reading.done() for reading in readings.values())


def set_matches(members: SetLookup, flags: tuple[str, ...], family: int, *, exceptions: bool = False) -> Condition:
    """`--match-set NAME src,dst`. A set of more components than flags, or of the other family, has no packet.

    With `exceptions` (`--return-nomatch`) sets of networks match what an exception of theirs decides about.
    """
    if members.sets or members.kind == "list:set":
        options = [set_matches(member, flags, family, exceptions=exceptions) for member in members.sets]
        inner = conditions.any_of(options) if options else conditions.never
        return (lambda s: inner(s) or None) if members.unread else inner
    if not members.kind:
        return conditions.always_unknown
    if len(flags) < members.width or members.family not in (0, family):
        return conditions.never
    kinds = members.kind.partition(":")[2].split(",")
    getters = [g for kind, flag in zip(kinds, flags, strict=False) for g in _component(kind, flag == "dst", members)]
    if exceptions and "net" in kinds:
        inner = conditions.in_exceptions(tuple(getters), members)
    else:
        inner = conditions.in_set(tuple(getters), members)
    if "port" in kinds:
        return lambda s: inner(s) if s.proto in _WITH_PORTS else False
    return inner


_WITH_PORTS = {PROTOCOLS[name] for name in ("tcp", "udp", "sctp", "udplite", "icmp", "icmpv6")}


def _component(kind: str, destination: bool, members: SetLookup) -> list[Getter]:
    """Getters for one component of an ipset's type: an address, or protocol and port."""
    if kind == "port":
        return [conditions.get_protocol, conditions.get_dport if destination else conditions.get_sport]
    if kind == "iface":
        return [conditions.get_out_device if destination else conditions.get_in_device]
    if kind == "mark":
        return [conditions.get_mark]
    if kind == "mac":
        return [conditions.always_unknown]
    getter: Getter = conditions.get_destination if destination else conditions.get_source
    return [getter if members.mask is None else _masked(getter, members.mask)]


def _masked(getter: Getter, mask: int) -> Getter:
    def masked(s: State) -> int | None:
        value = getter(s)
        return None if value is None else value & mask

    return masked
