"""The options of iptables' matches as checks. Source: iptables-extensions(8), "MATCH EXTENSIONS"; net/netfilter/xt_*.c."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from kubectl_genainet.proxy.evaluator import checks
from kubectl_genainet.proxy.evaluator.checks import PROTOCOLS, Getter, Question, any_of, asking
from kubectl_genainet.proxy.evaluator.ir import Rule
from kubectl_genainet.proxy.evaluator.packet.icmp import ICMP_NAMES, ICMPV6_NAMES
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, Check, State
from kubectl_genainet.proxy.iptables import conntrack
from kubectl_genainet.proxy.iptables.headers import HEADER_OPTIONS
from kubectl_genainet.proxy.iptables.ipset import set_matches
from kubectl_genainet.proxy.iptables.reader import Node, Option, Reader, network, ports
from kubectl_genainet.proxy.iptables.target import value_and_mask


def _source(c: Node, r: Reader, rule: Rule) -> Check:
    return any_of([checks.source_in(*network(part)) for part in r.next().split(",")])


def _destination(c: Node, r: Reader, rule: Rule) -> Check:
    text = r.next()
    if "," in text:
        rule.by_destination = True
        return any_of([checks.destination_in(*network(part)) for part in text.split(",")])
    net, mask, family = network(text)
    if not r.negated and mask == (ALL_BITS if family == 4 else (1 << 128) - 1):
        rule.dst = net
    else:
        rule.by_destination = True
    return checks.destination_in(net, mask, family)


def _protocol(c: Node, r: Reader, rule: Rule) -> Check | None:
    name = r.next().lower()
    number = PROTOCOLS[name] if name in PROTOCOLS else int(name)
    if number and not r.negated:
        rule.proto = number
    return checks.protocol_is(number) if number else None


def _dport(c: Node, r: Reader, rule: Rule) -> Check:
    low, high = ports(r.next())
    if low == high and not r.negated:
        rule.dport = low
    return checks.dport_between(low, high)


def _sport(c: Node, r: Reader, rule: Rule) -> Check:
    return checks.sport_between(*ports(r.next()))


def _multiport(*kinds: str) -> Option:
    def option(c: Node, r: Reader, rule: Rule) -> Check:
        ranges = [ports(part) for part in r.next().split(",")]
        makers = {"dport": checks.dport_between, "sport": checks.sport_between}
        return any_of([makers[kind](*bounds) for kind in kinds for bounds in ranges])

    return option


def _device(*, out: bool) -> Option:
    return lambda c, r, rule: checks.device_is(r.next(), out=out, wildcard="+")


def _skip(count: int) -> Option:
    """An option that decides nothing: `count` values are skipped."""

    def option(c: Node, r: Reader, rule: Rule) -> None:
        r.at += count

    return option


def _mark(c: Node, r: Reader, rule: Rule) -> Check:
    value = value_and_mask(r.next())
    if r.module == "connmark":
        return conntrack.unless_traced(r, checks.connmark_is(*value))
    return checks.mark_is(*value)


def _address_type(side: Callable[[str], Check]) -> Option:
    def option(c: Node, r: Reader, rule: Rule) -> Check:
        check = any_of([side(kind) for kind in r.next().upper().split(",")])
        if not any(word.startswith("--limit-iface") for word in r.words[r.at :]):
            return check
        local = side("LOCAL")  # what is local at one device is not at another (match_type, net/netfilter/xt_addrtype.c)
        return lambda s: check(s) if local(s) is False else None

    return option


def _probability(c: Node, r: Reader, rule: Rule) -> None:
    share = float(r.next())
    rule.probability = 1 - share if r.negated else share


def _every(c: Node, r: Reader, rule: Rule) -> None:
    share = 1.0 / int(r.next())  # nth mode: over many packets
    rule.probability = 1 - share if r.negated else share


def _recent_list(r: Reader) -> str:
    """The list that the options after this one name."""
    rest = r.words[r.at :]
    return rest[rest.index("--name") + 1] if "--name" in rest[:-1] else "DEFAULT"


def _recent_set(c: Node, r: Reader, rule: Rule) -> Check:
    name = f"recent {_recent_list(r)}"

    def check(s: State) -> bool:
        s.added = (*s.added, (name, ()))
        return True

    return check


def _recent_seen(c: Node, r: Reader, rule: Rule) -> Check:
    """A client's first connection is in no list yet, unless a rule has just put it there: kube-proxy's affinity asks."""
    name = f"recent {_recent_list(r)}"
    rest = r.words[r.at :]
    hits = int(rest[rest.index("--hitcount") + 1]) if "--hitcount" in rest[:-1] else 1
    return lambda s: hits <= 1 and (name, ()) in s.added


def _match_set(c: Node, r: Reader, rule: Rule) -> Check:
    name, flags = r.next(), r.next().split(",")
    members = c.sets.get(name)
    if members is None:
        return checks.always_unknown
    listed, changed = set_matches(members, tuple(flags), c.family), (f"ipset {name}", ())

    def check(s: State) -> bool | None:
        return None if changed in s.added else listed(s)  # a SET rule on the way has added the packet, or taken it out

    return check


def _physical(field: str) -> Option:
    def option(c: Node, r: Reader, rule: Rule) -> Check:
        name = r.next()
        low, high = (name[:-1], name[:-1] + "\U0010ffff") if name.endswith("+") else (name, name)

        def check(s: State) -> bool | None:
            port = s.phys_in if field == "in" else s.phys_out
            if s.bridged is False:
                return False
            return None if port is None else low <= port <= high

        return asking(check, Question(f"bridge port {field}", low, high))

    return option


def _bridged(c: Node, r: Reader, rule: Rule) -> Check:
    return lambda s: s.bridged


def _bridged_on(c: Node, r: Reader, rule: Rule) -> Check:
    """Bridged, not routed: a routed packet leaves no port yet (physdev_mt: nf_bridge_info's physoutdev)."""
    return lambda s: False if s.bridged is False else None


_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}


def _bits(text: str) -> int:
    return sum(_FLAGS[name] for name in dict.fromkeys(text.upper().split(",")))


def _flags_are(mask: int, value: int) -> Check:
    return lambda s: None if s.tcp_flags is None else s.tcp_flags & mask == value


def _tcp_flags(c: Node, r: Reader, rule: Rule) -> Check:
    return _flags_are(_bits(r.next()), _bits(r.next()))


def _syn(c: Node, r: Reader, rule: Rule) -> Check:
    return _flags_are(_bits("SYN,RST,ACK,FIN"), _FLAGS["SYN"])


def _icmp_type(c: Node, r: Reader, rule: Rule) -> Check:
    """As iptables-save writes it ("3/4", "8", "any", which is 255), or by name."""
    text = r.next()
    names = ICMPV6_NAMES if c.family == 6 else ICMP_NAMES
    text = names.get(text, text)
    kind, _, code = text.partition("/")
    if kind in ("any", "255"):
        return checks.always
    return checks.icmp_is(int(kind), int(code or 0), int(code or 255))


def _ip_range(side: Getter) -> Option:
    def option(c: Node, r: Reader, rule: Rule) -> Check:
        low, _, high = r.next().partition("-")
        first, last = int(ipaddress.ip_address(low)), int(ipaddress.ip_address(high or low))

        def check(s: State) -> bool | None:
            value = side(s)
            return None if value is None else first <= value <= last

        return check

    return option


def _owner(field: str) -> Option:
    """Of the socket that sends; what is forwarded has none, and only the negation matches (owner_mt)."""

    def option(c: Node, r: Reader, rule: Rule) -> Check:
        low, _, high = r.next().partition("-")
        first, last = int(low), int(high or low)

        def check(s: State) -> bool | None:
            owner = s.uid if field == "uid" else s.gid
            return None if owner is None else first <= owner <= last

        return asking(check, Question(field, first, last))

    return option


def _socket_exists(c: Node, r: Reader, rule: Rule) -> Check:
    return lambda s: s.own


def _packet_type(c: Node, r: Reader, rule: Rule) -> Check:
    kind = r.next()
    return lambda s: checks.get_packet_type(s) == kind


def _room(answer: bool) -> Option:
    """A limit of rate, number or volume: the first packet of the first connection finds room. This is said."""

    def option(c: Node, r: Reader, rule: Rule) -> Check:
        start = r.at
        r.at += 1
        what = f"{r.module} {' '.join(r.words[start - 1 : r.at])} is not reached"
        return checks.assuming(what, answer)

    return option


def _connlimit(*, above: bool) -> Option:
    def option(c: Node, r: Reader, rule: Rule) -> Check:
        most = int(r.next())
        holds = most < 1 if above else most >= 1
        return checks.assuming("the client has no other connection", holds)

    return option


def _ipsec(c: Node, r: Reader, rule: Rule) -> Check:
    return checks.assuming("no IPsec policy applies", r.next() == "none")


def _reverse_path(c: Node, r: Reader, rule: Rule) -> None:
    return None


def _reverse_path_fails(c: Node, r: Reader, rule: Rule) -> Check:
    return checks.assuming("the reverse-path test passes", False)


def _helper(c: Node, r: Reader, rule: Rule) -> Check:
    r.at += 1
    return lambda s: False if s.ct in ("NEW", "UNTRACKED", "INVALID") else None


def _fragment(c: Node, r: Reader, rule: Rule) -> Check:
    return checks.never  # the first packet of a connection is whole, or a first fragment


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
    "--src-type": _address_type(checks.source_type_is),
    "--dst-type": _address_type(checks.destination_type_is),
    "--mode": _skip(1),
    "--probability": _probability,
    "--every": _every,
    "--packet": _skip(1),
    "--set": _recent_set,
    **dict.fromkeys(("--rcheck", "--update", "--remove"), _recent_seen),
    **dict.fromkeys(("--reap", "--rttl", "--rsource", "--rdest"), _skip(0)),
    **dict.fromkeys(("--seconds", "--hitcount", "--name", "--mask"), _skip(1)),
    "--match-set": _match_set,
    **dict.fromkeys(("--update-counters", "--update-subcounters"), _skip(0)),
    "--tcp-flags": _tcp_flags,
    "--syn": _syn,
    **dict.fromkeys(("--icmp-type", "--icmpv6-type"), _icmp_type),
    **dict.fromkeys(("--limit-iface-in", "--limit-iface-out"), _skip(0)),
    "--physdev-is-in": _bridged,
    "--physdev-is-bridged": _bridged_on,
    "--physdev-is-out": _bridged_on,
    "--physdev-in": _physical("in"),
    "--physdev-out": _physical("out"),
    "--src-range": _ip_range(checks.get_source),
    "--dst-range": _ip_range(checks.get_destination),
    "--uid-owner": _owner("uid"),
    "--gid-owner": _owner("gid"),
    "--socket-exists": _socket_exists,
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
