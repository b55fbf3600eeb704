"""The options of iptables' matches as conditions. Source: iptables-extensions(8), "MATCH EXTENSIONS"; net/netfilter/xt_*.c."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.conditions import FieldQuestion, Getter, any_of, asking
from kubectl_genainet.proxy.evaluator.ir import Rule
from kubectl_genainet.proxy.evaluator.packet.icmp import ICMP_NAMES, ICMPV6_NAMES
from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, Condition, State
from kubectl_genainet.proxy.iptables import conntrack
from kubectl_genainet.proxy.iptables.headers import HEADER_OPTIONS
from kubectl_genainet.proxy.iptables.ipset import set_matches
from kubectl_genainet.proxy.iptables.reader import Option, Reader, RuleContext, network, ports
from kubectl_genainet.proxy.iptables.target import value_and_mask


def _source(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return any_of([conditions.source_in(*network(part)) for part in r.next().split(",")])


def _destination(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    text = r.next()
    if "," in text:
        rule.by_destination = True
        return any_of([conditions.destination_in(*network(part)) for part in text.split(",")])
    net, mask, family = network(text)
    if not r.negated and mask == (ALL_BITS if family == 4 else (1 << 128) - 1):
        rule.dst = net
    else:
        rule.by_destination = True
    return conditions.destination_in(net, mask, family)


def _protocol(c: RuleContext, r: Reader, rule: Rule) -> Condition | None:
    name = r.next().lower()
    number = PROTOCOLS[name] if name in PROTOCOLS else int(name)
    if number and not r.negated:
        rule.proto = number
    return conditions.protocol_is(number) if number else None


def _dport(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    low, high = ports(r.next())
    if low == high and not r.negated:
        rule.dport = low
    return conditions.dport_between(low, high)


def _sport(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return conditions.sport_between(*ports(r.next()))


def _multiport(*kinds: str) -> Option:
    def option(c: RuleContext, r: Reader, rule: Rule) -> Condition:
        ranges = [ports(part) for part in r.next().split(",")]
        makers = {"dport": conditions.dport_between, "sport": conditions.sport_between}
        return any_of([makers[kind](*bounds) for kind in kinds for bounds in ranges])

    return option


def _device(*, out: bool) -> Option:
    return lambda c, r, rule: conditions.device_is(r.next(), out=out, wildcard="+")


def _skip(count: int) -> Option:
    """An option that decides nothing: `count` values are skipped."""

    def option(c: RuleContext, r: Reader, rule: Rule) -> None:
        r.position += count

    return option


def _mark(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    value = value_and_mask(r.next())
    if r.module == "connmark":
        return conntrack.unless_traced(r, conditions.connmark_is(*value))
    return conditions.mark_is(*value)


def _address_type(side: Callable[[str], Condition]) -> Option:
    def option(c: RuleContext, r: Reader, rule: Rule) -> Condition:
        condition = any_of([side(kind) for kind in r.next().upper().split(",")])
        if not any(word.startswith("--limit-iface") for word in r.rest_of_module()):
            return condition
        local = side("LOCAL")  # what is local at one device is not at another (match_type, net/netfilter/xt_addrtype.c)
        return lambda s: condition(s) if local(s) is False else None

    return option


def _probability(c: RuleContext, r: Reader, rule: Rule) -> None:
    share = float(r.next())
    rule.probability = 1 - share if r.negated else share


def _every(c: RuleContext, r: Reader, rule: Rule) -> None:
    share = 1.0 / int(r.next())  # nth mode: over many packets
    rule.probability = 1 - share if r.negated else share


def _recent_list(r: Reader) -> str:
    """The list that the options after this one name."""
    options = r.rest_of_module()
    return options[options.index("--name") + 1] if "--name" in options[:-1] else "DEFAULT"


def _recent_set(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    name = f"recent {_recent_list(r)}"

    def condition(s: State) -> bool:
        s.added = (*s.added, (name, ()))
        return True

    return condition


def _recent_seen(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    """A client's first connection is in no list yet, unless a rule has just put it there: kube-proxy's affinity asks."""
    name = f"recent {_recent_list(r)}"
    options = r.rest_of_module()
    hits = int(options[options.index("--hitcount") + 1]) if "--hitcount" in options[:-1] else 1
    return lambda s: hits <= 1 and (name, ()) in s.added


def _match_set(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    name, flags = r.next(), r.next().split(",")
    members = c.sets.get(name)
    if members is None:
        return conditions.always_unknown
    exceptions = "--return-nomatch" in r.rest_of_module()
    listed = set_matches(members, tuple(flags), c.family, exceptions=exceptions)
    changed = (f"ipset {name}", ())

    def condition(s: State) -> bool | None:
        return None if changed in s.added else listed(s)  # a SET rule on the way has added the packet, or taken it out

    return condition


def _physical(field: str) -> Option:
    def option(c: RuleContext, r: Reader, rule: Rule) -> Condition:
        name = r.next()
        low, high = (name[:-1], name[:-1] + "\U0010ffff") if name.endswith("+") else (name, name)

        def condition(s: State) -> bool | None:
            port = s.phys_in if field == "in" else s.phys_out
            if s.bridged is False:
                return False
            return None if port is None else low <= port <= high

        return asking(condition, FieldQuestion(f"bridge port {field}", low, high))

    return option


def _bridged(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return lambda s: s.bridged


def _bridged_on(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    """Bridged, not routed: a routed packet leaves no port yet (physdev_mt: nf_bridge_info's physoutdev)."""
    return lambda s: False if s.bridged is False else None


_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}


def _bits(text: str) -> int:
    return sum(_FLAGS[name] for name in dict.fromkeys(text.upper().split(",")))


def _flags_are(mask: int, value: int) -> Condition:
    return lambda s: None if s.tcp_flags is None else s.tcp_flags & mask == value


def _tcp_flags(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return _flags_are(_bits(r.next()), _bits(r.next()))


def _syn(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return _flags_are(_bits("SYN,RST,ACK,FIN"), _FLAGS["SYN"])


def _icmp_type(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    """As iptables-save writes it ("3/4", "8", "any", which is 255), or by name."""
    text = r.next()
    names = ICMPV6_NAMES if c.family == 6 else ICMP_NAMES
    text = names.get(text, text)
    kind, _, code = text.partition("/")
    if kind in ("any", "255"):
        return conditions.always
    return conditions.icmp_is(int(kind), int(code or 0), int(code or 255))


def _ip_range(side: Getter) -> Option:
    def option(c: RuleContext, r: Reader, rule: Rule) -> Condition:
        low, _, high = r.next().partition("-")
        first, last = int(ipaddress.ip_address(low)), int(ipaddress.ip_address(high or low))

        def condition(s: State) -> bool | None:
            value = side(s)
            return None if value is None else first <= value <= last

        return condition

    return option


def _owner(field: str) -> Option:
    """Of the socket that sends; what is forwarded has none, and only the negation matches (owner_mt)."""

    def option(c: RuleContext, r: Reader, rule: Rule) -> Condition:
        low, _, high = r.next().partition("-")
        first = 0 if low == "root" else int(low)  # of names, only root's number is the same on every node
        last = int(high) if high else first

        def condition(s: State) -> bool | None:
            owner = s.uid if field == "uid" else s.gid
            return None if owner is None else first <= owner <= last

        return asking(condition, FieldQuestion(field, first, last))

    return option


def _socket_exists(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return lambda s: s.own


def _transparent_socket(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return conditions.has_transparent_socket


def _packet_type(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    kind = r.next()
    return lambda s: conditions.get_packet_type(s) == kind


def _room(answer: bool) -> Option:
    """A limit of rate, number or volume: the first packet of the first connection finds room. This is said."""

    def option(c: RuleContext, r: Reader, rule: Rule) -> Condition:
        start = r.position
        r.position += 1
        what = f"{r.module} {' '.join(r.tokens[start - 1 : r.position])} is not reached"
        return conditions.assuming(what, answer)

    return option


def _connlimit(*, above: bool) -> Option:
    def option(c: RuleContext, r: Reader, rule: Rule) -> Condition:
        most = int(r.next())
        holds = most < 1 if above else most >= 1
        return conditions.assuming("the client has no other connection", holds)

    return option


def _ipsec(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return conditions.assuming("no IPsec policy applies", r.next() == "none")


def _reverse_path(c: RuleContext, r: Reader, rule: Rule) -> None:
    return None


def _reverse_path_fails(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return conditions.assuming("the reverse-path test passes", False)


def _helper(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    r.position += 1
    return lambda s: False if s.ct in ("NEW", "UNTRACKED", "INVALID") else None


def _fragment(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return conditions.never  # the first packet of a connection is whole, or a first fragment


MODULES: dict[str, Condition] = {"socket": conditions.has_socket}  # that match by themselves
SILENT_MODULES = {
    *("comment", "tcp", "udp", "sctp", "recent", "mark", "conntrack", "statistic", "multiport", "icmp", "icmp6"),
    *("nfacct", "rpfilter", "udplite"),
}
OPTIONS: dict[str, Option] = {
    **dict.fromkeys(("-s", "--source", "--src"), _source),
    **dict.fromkeys(("-d", "--destination", "--dst"), _destination),
    **dict.fromkeys(("-p", "--protocol", "--proto"), _protocol),
    **dict.fromkeys(("--dport", "--destination-port"), _dport),
    **dict.fromkeys(("--sport", "--source-port"), _sport),
    **dict.fromkeys(("--dports", "--destination-ports"), _multiport("dport")),
    **dict.fromkeys(("--sports", "--source-ports"), _multiport("sport")),
    "--ports": _multiport("sport", "dport"),
    **dict.fromkeys(("-i", "--in-interface"), _device(out=False)),
    **dict.fromkeys(("-o", "--out-interface"), _device(out=True)),
    **dict.fromkeys(("-f", "--fragment"), _fragment),
    **dict.fromkeys(("-4", "-6", "--ipv4", "--ipv6"), _skip(0)),
    **dict.fromkeys(("-c", "--set-counters"), _skip(2)),
    "--mark": _mark,
    **dict.fromkeys(("--ctstate", "--state"), conntrack.state),
    "--ctstatus": conntrack.status,
    "--ctproto": conntrack.protocol,
    "--ctorigsrc": conntrack.original_source,
    "--ctorigdst": conntrack.original_destination,
    "--ctorigdstport": conntrack.original_dport,
    "--ctorigsrcport": _sport,
    "--ctreplsrc": conntrack.reply_source,
    "--ctrepldst": conntrack.reply_destination,
    "--ctdir": conntrack.direction,
    "--src-type": _address_type(conditions.source_type_is),
    "--dst-type": _address_type(conditions.destination_type_is),
    "--mode": _skip(1),
    "--probability": _probability,
    "--every": _every,
    "--packet": _skip(1),
    "--set": _recent_set,
    **dict.fromkeys(("--rcheck", "--update", "--remove"), _recent_seen),
    **dict.fromkeys(("--reap", "--rttl", "--rsource", "--rdest"), _skip(0)),
    **dict.fromkeys(("--seconds", "--hitcount", "--name", "--mask"), _skip(1)),
    "--match-set": _match_set,
    **dict.fromkeys(("--update-counters", "--update-subcounters", "--return-nomatch"), _skip(0)),
    "--tcp-flags": _tcp_flags,
    "--syn": _syn,
    **dict.fromkeys(("--icmp-type", "--icmpv6-type"), _icmp_type),
    **dict.fromkeys(("--limit-iface-in", "--limit-iface-out"), _skip(0)),
    "--physdev-is-in": _bridged,
    "--physdev-is-bridged": _bridged_on,
    "--physdev-is-out": _bridged_on,
    "--physdev-in": _physical("in"),
    "--physdev-out": _physical("out"),
    "--src-range": _ip_range(conditions.get_source),
    "--dst-range": _ip_range(conditions.get_destination),
    "--uid-owner": _owner("uid"),
    "--gid-owner": _owner("gid"),
    "--socket-exists": _socket_exists,
    "--transparent": _transparent_socket,
    **dict.fromkeys(("--nowildcard", "--restore-skmark"), _skip(0)),
    "--pkt-type": _packet_type,
    **HEADER_OPTIONS,
    "--limit": _room(True),
    "--limit-burst": _skip(1),
    **dict.fromkeys(("--hashlimit", "--hashlimit-upto"), _room(True)),
    "--hashlimit-above": _room(False),
    **dict.fromkeys(
        (f"--hashlimit-{o}" for o in ("burst", "mode", "name", "srcmask", "dstmask", "rate-interval")), _skip(1)
    ),
    **dict.fromkeys((f"--hashlimit-htable-{o}" for o in ("size", "max", "expire", "gcinterval")), _skip(1)),
    "--hashlimit-rate-match": _skip(0),
    "--quota": _room(True),
    "--connlimit-above": _connlimit(above=True),
    "--connlimit-upto": _connlimit(above=False),
    "--connlimit-mask": _skip(1),
    **dict.fromkeys(("--connlimit-saddr", "--connlimit-daddr"), _skip(0)),
    "--dir": _skip(1),
    "--pol": _ipsec,
    "--nfacct-name": _skip(1),
    **dict.fromkeys(("--validmark", "--loose", "--accept-local"), _reverse_path),
    "--invert": _reverse_path_fails,
    "--helper": _helper,
}
BY_DESTINATION = {
    *("--dport", "--destination-port", "--dports", "--destination-ports", "--ports", "--dst-range", "--match-set"),
    *("-o", "--out-interface", "--ctreplsrc", "--dst-type", "--physdev-out"),
}
