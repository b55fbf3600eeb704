"""What a rule of nft looks at: a field, a concatenation or arithmetic over one, as getters on the packet's state.

Source: libnftables-json(5), "EXPRESSIONS"; nft(8). A field of another protocol or of no connection ends the rule
(NFT_BREAK), whatever it is compared with: such conditions are the field's `needs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.conditions import Getter
from kubectl_genainet.proxy.evaluator.packet import header
from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.evaluator.packet.state import Condition, State
from kubectl_genainet.proxy.nftables import values
from kubectl_genainet.proxy.nftables.values import ZONE_SET, Convert, Unsupported

Json = dict[str, Any]


class Field(NamedTuple):
    """One or more components. `bits`: constants beside it are flags; `question` names it where it may be unknown."""

    getters: tuple[Getter, ...]
    converts: tuple[Convert, ...]
    needs: tuple[Condition, ...] = ()
    bits: bool = False
    question: str = ""


def field_of(expression: Any) -> Field:
    """Raises Unsupported for what is not read, named."""
    if not isinstance(expression, dict) or not expression:
        raise Unsupported(str(expression))
    (kind, body), *_ = expression.items()
    if kind == "concat":
        parts = [field_of(part) if isinstance(part, dict) else _constant(part) for part in body]
        return Field(
            tuple(g for part in parts for g in part.getters),
            tuple(c for part in parts for c in part.converts),
            tuple(n for part in parts for n in part.needs),
        )
    if kind == "payload" and isinstance(body, dict) and "field" in body:
        return _payload(str(body.get("protocol")), str(body["field"]))
    if kind == "payload" and isinstance(body, dict):
        return Field((_whole(_raw(body)),), (values.plain,))
    if kind == "tcp option":
        return Field((conditions.always_unknown,), (_anything,), (conditions.protocol_is(PROTOCOLS["tcp"]),))
    if kind == "rt":
        return _route(str(body["key"]))
    if kind == "socket":
        needs = (conditions.has_transparent_socket,) if body.get("key") == "transparent" else (conditions.has_socket,)
        return Field((conditions.always_unknown,), (_anything,), needs)
    if kind == "meta":
        return _meta(str(body["key"]))
    if kind == "ct":
        return _ct(str(body["key"]), str(body.get("dir", "")), str(body.get("family", "")))
    if kind == "fib":
        return _fib(body)
    if kind in ("&", "|", "^", "<<", ">>"):
        return _arithmetic(kind, body)
    if kind in ("jhash", "symhash", "numgen") and isinstance(body, dict) and body.get("mod") == 1:
        offset = int(body.get("offset", 0))
        return Field((lambda s: offset,), (values.plain,))
    raise Unsupported(kind)


def _constant(value: Any) -> Field:
    """A constant beside fields, as in `ip saddr . 10.0.0.1 . 80 @clients`."""
    try:
        number = values.single(value, values.plain)
    except (Unsupported, ValueError):
        return Field((lambda s: str(value),), (values.words,))
    return Field((lambda s: number,), (values.plain,))


def _arithmetic(kind: str, body: Any) -> Field:
    inner = field_of(body[0])
    if len(inner.getters) != 1:
        raise Unsupported(kind)
    number = 0
    for part in body[1:]:
        number |= values.single(part, inner.converts[0])
    if kind in ("<<", ">>") and not 0 <= number <= header.MOST_SHIFTED:
        raise Unsupported(kind)
    if kind == "&" and not number & _DONT_FRAGMENT and _is_fragment_offset(body[0]):
        return Field((header.no_fragment,), inner.converts, inner.needs)
    if kind == "&" and "base" in body[0].get("payload", ()):
        return Field((_masked_bits(_raw(body[0]["payload"]), number),), inner.converts, inner.needs)
    if kind == "&" and _key(body[0]) in ("meta mark", "ct mark"):
        return Field((_masked_mark(number, of_connection=_key(body[0]) == "ct mark"),), inner.converts, inner.needs)
    apply: dict[str, Callable[[int], int]] = {
        "&": lambda v: v & number,
        "|": lambda v: v | number,
        "^": lambda v: v ^ number,
        "<<": lambda v: v << number,
        ">>": lambda v: v >> number,
    }
    get, change = inner.getters[0], apply[kind]

    def changed(s: State) -> int | None:
        value = get(s)
        return change(value) if isinstance(value, int) else None

    return Field((changed,), inner.converts, inner.needs)


def _raw(body: Json) -> header.Read:
    read = header.raw_payload(str(body.get("base")), int(body["offset"]), int(body["len"]))
    if read is None:
        raise Unsupported("payload")
    return read


def _whole(read: header.Read) -> Getter:
    return _masked_bits(read, -1)


def _masked_bits(read: header.Read, mask: int) -> Getter:
    def get(s: State) -> int | None:
        bits = read(s)
        wanted = mask & (1 << bits.width) - 1
        return None if wanted & ~bits.known else bits.value & wanted

    return get


def _route(key: str) -> Field:
    if key == "classid":
        return Field((_default("the route has no realm"),), (values.named_zero,))
    if key == "ipsec":
        return Field((_without_ipsec,), (values.exists,))
    return Field((conditions.always_unknown,), (_anything,))


_DONT_FRAGMENT = 0x4000


def _is_fragment_offset(expression: Any) -> bool:
    payload = expression.get("payload") if isinstance(expression, dict) else None
    return isinstance(payload, dict) and (payload.get("protocol"), payload.get("field")) == ("ip", "frag-off")


def _key(expression: Any) -> str:
    """ "meta mark" of {"meta": {"key": "mark"}}."""
    (kind, body), *_ = expression.items()
    return f"{kind} {body.get('key', '')}" if isinstance(body, dict) else kind


def _masked_mark(mask: int, *, of_connection: bool) -> Getter:
    def masked(s: State) -> int | None:
        value, known = (s.connmark, s.connmark_known) if of_connection else (s.mark, s.known)
        return None if mask & ~known else value & mask

    return masked


_IP: dict[str, tuple[Getter, Convert]] = {
    "saddr": (conditions.get_source, values.plain),
    "daddr": (conditions.get_destination, values.plain),
    "protocol": (conditions.get_protocol, values.protocol),
    "nexthdr": (conditions.get_protocol, values.protocol),
    "dscp": (header.get_dscp, values.dscp),
    "ecn": (header.get_ecn, values.ecn),
    "ttl": (header.get_ttl, values.plain),
    "hoplimit": (header.get_ttl, values.plain),
    "hdrlength": (header.header_words, values.plain),
}
_LENGTHS = {"ip": header.get_length, "ip6": header.get_ip6_length, "udp": header.get_udp_length}
_PORTS: dict[str, Getter] = {"sport": conditions.get_sport, "dport": conditions.get_dport}


def _payload(protocol: str, name: str) -> Field:
    if protocol in ("ip", "ip6"):
        version = 4 if protocol == "ip" else 6
        of_family = (conditions.family_is(version),)
        if name == "version":
            return Field((lambda s: version,), (values.plain,), of_family)
        if name == "length":
            return Field((_LENGTHS[protocol],), (values.plain,), of_family)
        getter, convert = _IP.get(name, (conditions.always_unknown, values.plain))
        question = f"source{version}" if name == "saddr" else ""
        return Field((getter,), (convert,), of_family, question=question)
    if protocol not in PROTOCOLS and protocol != "th":
        raise Unsupported(f"{protocol} {name}")
    needs: tuple[Condition, ...] = () if protocol == "th" else (conditions.protocol_is(PROTOCOLS[protocol]),)
    if protocol in ("icmp", "icmpv6"):
        return _icmp(name, needs, v6=protocol == "icmpv6")
    if protocol == "tcp" and name == "flags":
        return Field((lambda s: s.tcp_flags,), (values.tcp_flags,), needs, bits=True)
    if (protocol, name) == ("udp", "length"):
        return Field((header.get_udp_length,), (values.plain,), needs)
    if name in _PORTS and protocol == "th":
        return Field((_first_words(name),), (values.port,), needs, question=name)
    if name in _PORTS:
        return Field((_PORTS[name],), (values.port,), needs, question=name)
    return Field((conditions.always_unknown,), (values.plain,), needs)


def _first_words(name: str) -> Getter:
    """The first or second 16 bits of any protocol's header: of ICMP type and code, and the checksum."""

    def get(s: State) -> int | None:
        if s.proto not in (PROTOCOLS["icmp"], PROTOCOLS["icmpv6"]):
            return s.sport if name == "sport" else s.dport
        return s.icmp[0] << 8 | s.icmp[1] if name == "sport" and s.icmp is not None else None

    return get


def _icmp(name: str, needs: tuple[Condition, ...], *, v6: bool) -> Field:
    if name == "type":
        convert = values.icmpv6_type if v6 else values.icmp_type
        return Field((lambda s: None if s.icmp is None else s.icmp[0],), (convert,), needs)
    if name == "code":
        convert = values.icmpv6_code if v6 else values.icmp_code
        return Field((lambda s: None if s.icmp is None else s.icmp[1],), (convert,), needs)
    return Field((conditions.always_unknown,), (values.plain,), needs)


def _uid(s: State) -> int | None:
    return s.uid


def _gid(s: State) -> int | None:
    return s.gid


def _sent_by_a_socket(s: State) -> bool:
    return s.uid != -1 or s.gid != -1


def _default(what: str) -> Getter:
    """0, which is said to be taken for granted."""

    def get(s: State) -> int:
        s.assume(what)
        return 0

    return get


_META: dict[str, tuple[Getter, Convert, str]] = {
    "l4proto": (conditions.get_protocol, values.protocol, ""),
    "mark": (conditions.get_mark, values.plain, ""),
    "iifname": (conditions.get_in_device, values.device, "in device"),
    "oifname": (conditions.get_out_device, values.device, "out device"),
    "iif": (conditions.get_in_device, values.device, "in device"),
    "oif": (conditions.get_out_device, values.device, "out device"),
    "nfproto": (lambda s: 2 if s.family == 4 else 10, values.family, ""),
    "protocol": (lambda s: 0x0800 if s.family == 4 else 0x86DD, values.ether_type, ""),
    "skuid": (_uid, values.user, "uid"),
    "skgid": (_gid, values.user, "gid"),
    "pkttype": (conditions.get_packet_type, values.packet_type, ""),
    "length": (header.get_length, values.plain, ""),
    "rtclassid": (_default("the route has no realm"), values.named_zero, ""),
    "iifgroup": (_default("the device is in group 0"), values.named_zero, ""),
    "oifgroup": (_default("the device is in group 0"), values.named_zero, ""),
}


def _meta(key: str) -> Field:
    if key in ("ipsec", "secpath"):
        return Field((_without_ipsec,), (values.exists,))
    if key not in _META:
        return Field((conditions.always_unknown,), (_anything,))
    getter, convert, question = _META[key]
    needs = (_sent_by_a_socket,) if key in ("skuid", "skgid") else ()
    return Field((getter,), (convert,), needs, question=question)


def _without_ipsec(s: State) -> int:
    s.assume("no IPsec policy applies")
    return 0


def _anything(value: Any) -> tuple[Any, Any]:
    return 0, 0


def _traced(s: State) -> bool:
    return s.traced


def _first(get: Getter) -> Getter:
    """Of a connection's first packet only: what conntrack keeps of others is not known."""
    return lambda s: get(s) if s.ct == "NEW" else None


def _no_helper(s: State) -> str:
    s.assume("the connection has no helper")
    return ""


_WAYS = ("", "original", "reply")


def _counted_packets(way: str) -> Getter:
    """Conntrack has counted the packet when rules ask (nf_ct_refresh_acct), as one of the original direction."""
    return _first(lambda s: 0 if way == "reply" else 1)


def _counted_bytes(way: str) -> Getter:
    return _first(lambda s: 0 if way == "reply" else header.get_length(s))


_CT: dict[tuple[str, str], tuple[Getter, Convert]] = {
    ("status", ""): (conditions.get_ct_status, values.ct_status),
    ("mark", ""): (conditions.get_connmark, values.plain),
    ("direction", ""): (_first(lambda s: "original"), values.words),
    ("helper", ""): (_first(_no_helper), values.words),
    ("zone", ""): (_first(lambda s: None if ZONE_SET in s.added else 0), values.plain),
    **{("packets", way): (_counted_packets(way), values.plain) for way in _WAYS},
    **{("bytes", way): (_counted_bytes(way), values.plain) for way in _WAYS},
    **{("avgpkt", way): (_counted_bytes(way), values.plain) for way in _WAYS},
    ("l3proto", ""): (lambda s: 2 if s.family == 4 else 10, values.family),
    ("protocol", ""): (conditions.get_protocol, values.protocol),
    ("saddr", "original"): (_first(conditions.get_original_source), values.conntrack_address),
    ("daddr", "original"): (_first(lambda s: s.orig_dst), values.conntrack_address),
    ("proto-src", "original"): (_first(conditions.get_sport), values.port),
    ("proto-dst", "original"): (_first(lambda s: s.orig_dport), values.port),
    ("saddr", "reply"): (_first(conditions.get_destination), values.conntrack_address),
    ("daddr", "reply"): (_first(conditions.get_source), values.conntrack_address),
    ("proto-src", "reply"): (_first(conditions.get_dport), values.port),
}


def _ct(key: str, direction: str, family: str) -> Field:
    if key == "state":
        return Field((lambda s: s.ct.lower(),), (values.words,), bits=True)
    needs: tuple[Condition, ...] = (_traced,)
    key = key.removeprefix(family).strip() if family else key
    for prefix, version in (("ip6 ", 6), ("ip ", 4)):
        if key.startswith(prefix) or family == prefix.strip():
            needs = (*needs, conditions.family_is(version))
            key = key.removeprefix(prefix)
            break
    if key in ("protocol", "l3proto"):
        direction = ""
    getter, convert = _CT.get((key, direction), (conditions.always_unknown, _anything))
    return Field((getter,), (convert,), needs, bits=key in ("status", "label"))


def _fib(body: Json) -> Field:
    flags = body.get("flags", [])
    flags = [flags] if isinstance(flags, str) else flags
    if body["result"] == "type" and not {"iif", "oif"} & set(flags):
        get = conditions.get_source if "saddr" in flags else conditions.get_destination
        return Field((lambda s: conditions.address_type(s, get(s)),), (values.words,))
    if body["result"] == "type":
        get = conditions.get_source if "saddr" in flags else conditions.get_destination
        return Field((lambda s: _type_without_device(s, get(s)),), (values.words,))
    if body["result"] in ("oif", "oifname", "check") and "saddr" in flags:
        return Field((_route_back,), (_route_exists,))
    if body["result"] in ("oif", "oifname") and flags == ["daddr"]:
        return Field((_routed_device,), (values.device,))
    return Field((conditions.always_unknown,), (_anything,))


def _type_without_device(s: State, address: int | None) -> str | None:
    """What is local at one device need not be at another; what is not local, is so nowhere."""
    kind = conditions.address_type(s, address)
    return None if kind == "local" else kind


def _routed_device(s: State) -> str | None:
    """Where its destination alone leads, which is where the packet goes, unless rules of routing ask for more."""
    if not s.oif or s.env.is_local(s.dst, s.family) is not False:
        return None
    s.assume("the route depends on the destination alone")
    return s.oif


def _route_back(s: State) -> bool:
    s.assume("the reverse-path test passes")
    return True


def _route_exists(value: Any) -> tuple[bool, bool]:
    """Whether there is a route back; by which device is not known. Raises Unsupported for a device's name."""
    if value in (False, 0, "0", "missing"):
        return False, False
    if value in (True, "exists"):
        return True, True
    raise Unsupported(f"the device of a route back: {value}")
