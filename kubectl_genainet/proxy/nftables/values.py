"""Constants of nft by the type of the field that they stand beside: numbers, or names of devices and states."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Any

from kubectl_genainet.model.units import whole_number
from kubectl_genainet.proxy.evaluator.conditions import STATUS_BITS
from kubectl_genainet.proxy.evaluator.packet.header import NAMES_OF_ZERO
from kubectl_genainet.proxy.evaluator.packet.icmp import ICMP_NAMES, ICMPV6_NAMES
from kubectl_genainet.proxy.evaluator.packet.protocols import PORTS, PROTOCOLS
from kubectl_genainet.proxy.evaluator.sets import ANY

Json = dict[str, Any]
ZONE_SET = ("ct zone", ())  # among what rules on the way have added: a zone of conntrack's, which the packet has since
Bounds = tuple[Any, Any]
Convert = Callable[[Any], Bounds]  # lowest and highest value of a constant; raises Unsupported


class Unsupported(Exception):
    """An expression that this compiler does not read; the text names it."""


def numbers(names: Mapping[str, int]) -> Convert:
    """Constants that are numbers or one of `names`, or several of them as bits."""

    def convert(value: Any) -> Bounds:
        if isinstance(value, dict):
            return _composite(value, convert)
        if isinstance(value, list):
            bits = [single(part, convert) for part in value]
            total = 0
            for bit in bits:
                total |= bit
            return total, total
        number = _number(value, names)
        return number, number

    return convert


def _number(value: Any, names: Mapping[str, int]) -> int:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        if value in names:
            return names[value]
        if "|" in value:  # flags of one element
            return reduce(or_, (_number(part.strip(), names) for part in value.split("|")))
        try:
            return int(value, 0)
        except ValueError:
            pass
        try:
            return int(ipaddress.ip_address(value))
        except ValueError:
            pass
    raise Unsupported(f"value {value}")


def _composite(value: Json, convert: Convert) -> Bounds:
    (kind, body), *_ = value.items()
    if kind == "prefix":
        return _prefix(body)
    if kind == "range":
        return single(body[0], convert), single(body[1], convert)
    if kind == "elem":
        return convert(body["val"])
    if kind in ("|", "&", "^"):
        parts = [single(part, convert) for part in body]
        result = parts[0]
        for part in parts[1:]:
            result = result | part if kind == "|" else result & part if kind == "&" else result ^ part
        return result, result
    raise Unsupported(f"value {kind}")


def _prefix(body: Json) -> Bounds:
    if not isinstance(body, dict) or not isinstance(body.get("addr"), str):
        raise Unsupported("prefix")
    try:
        net = ipaddress.ip_network(f"{body['addr']}/{body['len']}", strict=False)
    except (ValueError, KeyError):
        raise Unsupported("prefix") from None
    return int(net.network_address), int(net.broadcast_address)


def single(value: Any, convert: Convert) -> int:
    low, high = convert(value)
    if low != high or not isinstance(low, int):
        raise Unsupported(f"value {value}")
    return low


def words(value: Any) -> Bounds:
    """Names that stay names: conntrack states, directions."""
    if isinstance(value, dict) and "elem" in value:
        return words(value["elem"]["val"])
    if not isinstance(value, str):
        raise Unsupported(f"value {value}")
    return value, value


def device(value: Any) -> Bounds:
    """A device's name; "eth*" is every name that begins so."""
    low, _ = words(value)
    name = str(low)
    if name.endswith("*") and not name.endswith("\\*"):
        return name[:-1], name[:-1] + "\U0010ffff"
    return name.replace("\\*", "*"), name.replace("\\*", "*")


def bounds_of(value: Any, convert: Convert) -> Bounds:
    return (ANY, ANY) if value == "*" else convert(value)


def guessed(value: Any) -> Bounds:
    """A constant beside no field: a number, a protocol's or a service's name, else the word itself."""
    try:
        return numbers({**PROTOCOLS, **PORTS})(value)
    except Unsupported:
        return words(value)


_TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_DSCP = {
    **{f"cs{n}": n * 8 for n in range(8)},
    **{f"af{c}{d}": c * 8 + d * 2 for c in range(1, 5) for d in range(1, 4)},
    "df": 0,
    "be": 0,
    "ef": 46,
    "va": 44,
    "lephb": 1,
}
_ICMP_CODES = {
    "net-unreachable": 0,
    "host-unreachable": 1,
    "prot-unreachable": 2,
    "port-unreachable": 3,
    "frag-needed": 4,
    "net-prohibited": 9,
    "host-prohibited": 10,
    "admin-prohibited": 13,
}
_ICMPV6_CODES = {
    "no-route": 0,
    "admin-prohibited": 1,
    "addr-unreachable": 3,
    "port-unreachable": 4,
    "policy-fail": 5,
    "reject-route": 6,
}


def _types(names: Mapping[str, str]) -> dict[str, int]:
    return {name: number for name, text in names.items() if (number := whole_number(text)) is not None}


plain = numbers({})
port = numbers(PORTS)
protocol = numbers(PROTOCOLS)
tcp_flags = numbers(_TCP_FLAGS)
dscp = numbers(_DSCP)
icmp_type = numbers(_types(ICMP_NAMES))
icmpv6_type = numbers(_types(ICMPV6_NAMES))
icmp_code = numbers(_ICMP_CODES)
icmpv6_code = numbers(_ICMPV6_CODES)
ct_status = numbers(STATUS_BITS)
ether_type = numbers({"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "vlan": 0x8100})
family = numbers({"ipv4": 2, "ipv6": 10})
ecn = numbers({"not-ect": 0, "ect1": 1, "ect0": 2, "ce": 3})
exists = numbers({"exists": 1, "missing": 0})
user = numbers({"root": 0})


def packet_type(value: Any) -> Bounds:
    low, _ = words(value)
    return ("unicast", "unicast") if low == "host" else (low, low)


def conntrack_address(value: Any) -> Bounds:
    """An address of a connection. nft 1.0.6 prints 10.7.0.0/24 there as 0.10.7.0: the bytes that are compared, last.

    Of IPv6 addresses it can't be told what was left out.
    """
    if isinstance(value, str) and value.startswith("0.") and value != "0.0.0.0":
        octets = value.lstrip("0.").split(".")
        network = ".".join([*octets, *["0"] * (4 - len(octets))])
        return _prefix({"addr": network, "len": 8 * len(octets)})
    if isinstance(value, str) and value.startswith("::") and len(value) > 2:
        raise Unsupported(f"address {value}")
    return plain(value)


def named_zero(value: Any) -> Bounds:
    """A realm or a group of devices: nft prints the names of the machine where the listing was made."""
    if value in NAMES_OF_ZERO:
        return 0, 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unsupported(f"value {value}")
    return value, value
