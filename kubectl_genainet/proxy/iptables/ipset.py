"""`ipset list` and `ipset save` text: the sets that kube-proxy's IPVS mode and policy enforcers match against."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from kubectl_genainet.proxy.evaluator.checks import PROTOCOLS
from kubectl_genainet.proxy.evaluator.ir import SetLookup
from kubectl_genainet.proxy.iptables.rule import network


class IpSet(msgspec.Struct, frozen=True):
    """One set. `members` are as listed, without options such as timeout; `type` is ipset's ("hash:ip,port")."""

    name: str
    type: str
    members: tuple[str, ...]

    def lookup(self) -> SetLookup:
        """The set as the evaluation asks it. Members that can't be read are left out."""
        kinds = self.type.partition(":")[2].split(",")
        found = SetLookup(self.type, len(kinds))
        for member in self._with_protocols():
            try:
                bounds = _bounds(kinds, member.split(","))
            except (ValueError, KeyError):
                continue
            if all(low == high for low, high in bounds):
                found.exact[tuple(low for low, _ in bounds)] = True
            else:
                found.intervals.append((tuple(bounds), True))
        return found

    def _with_protocols(self) -> Iterator[str]:
        """The members; those of bitmap:port, which have none, for each protocol that the kernel asks it for.

        Source: ip_set_get_ip_port, net/netfilter/ipset/ip_set_getport.c.
        """
        for member in self.members:
            if self.type == "bitmap:port":
                yield from (f"tcp:{member}", f"udp:{member}")
            else:
                yield member


def _bounds(kinds: list[str], parts: list[str]) -> list[tuple[object, object]]:
    """Low and high of each component; a port ("tcp:80") is two components, protocol and port."""
    bounds: list[tuple[object, object]] = []
    for kind, part in zip(kinds, parts, strict=True):
        if kind == "port":
            protocol, colon, port = part.partition(":")
            number = PROTOCOLS[protocol] if colon else 6
            low, _, high = (port if colon else protocol).partition("-")
            bounds += [(number, number), (int(low), int(high or low))]
        elif kind in ("iface", "mac"):
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


def parse_ipset(text: str) -> tuple[IpSet, ...]:
    """The sets of an `ipset list` or `ipset save` text, in order."""
    names: dict[str, tuple[str, list[str]]] = {}
    name, in_members = "", False
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        words = line.split()
        if key == "Name":
            name, in_members = value.strip(), False
            names[name] = ("", [])
        elif key == "Type" and name:
            names[name] = (value.strip(), names[name][1])
        elif line.startswith("Members:"):
            in_members = True
        elif words[:1] == ["create"] and len(words) > 2:
            names[words[1]] = (words[2], [])
        elif words[:1] == ["add"] and len(words) > 2 and words[1] in names:
            names[words[1]][1].append(words[2])
        elif in_members and words and name:
            names[name][1].append(words[0])
    return tuple(IpSet(name, kind, tuple(members)) for name, (kind, members) in names.items())
