"""One nftables rule, as JSON expressions, compiled to checks and actions.

Source: libnftables-json(5), nft(8). What is not handled makes a check, or ends in an action, that names it and
can't be answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubectl_genainet.proxy.evaluator import checks
from kubectl_genainet.proxy.evaluator.checks import PROTOCOLS, Getter
from kubectl_genainet.proxy.evaluator.ir import (
    ALL_BITS,
    CONTINUE_ACTION,
    Act,
    Action,
    Chain,
    Check,
    Rule,
    SetLookup,
    State,
)
from kubectl_genainet.proxy.nftables.literals import Json, add_elements, bounds_of, number_of
from kubectl_genainet.proxy.nftables.show import show_expressions

if TYPE_CHECKING:
    from kubectl_genainet.proxy.nftables.read import NftTable

_NO_EFFECT = {
    "counter",
    "log",
    "set",
    "notrack",
    "flow",
    "synproxy",
    "quota last",
    "last",
    "secmark",
    "ct helper",
    "comment",
    "dup",
    "tcp option",
    "reset",
}
_STATES = {"new", "established", "related", "invalid", "untracked"}


class _Unsupported(Exception):
    """An expression that this compiler does not read; the text names it."""


def compile_rule(table: NftTable, chain: Chain, number: int, raw: Json) -> Rule:
    rule = Rule(chain, number, raw)
    found: list[tuple[Check, str]] = []
    actions: list[Action] = []
    for entry in raw.get("expr", []):
        (kind, body), *_ = entry.items()
        label = show_expressions([entry])
        try:
            if kind == "match":
                if any(a.kind in (Act.MARK, Act.UNKNOWN) for a in actions):
                    raise _Unsupported(f"match after a change: {label}")
                found += [(check, label) for check in _match(table, rule, body)]
            elif kind not in _NO_EFFECT:
                actions.append(_statement(table, found, kind, body, label))
        except (_Unsupported, KeyError, TypeError, ValueError):
            found.append((checks.always_unknown, label))
    rule.checks, rule.labels = tuple(c for c, _ in found), tuple(text for _, text in found)
    rule.actions = tuple(actions)
    rule.by_destination = True  # which of nftables' expressions ask for it is not looked into
    rule.finish()
    return rule


def _statement(table: NftTable, found: list[tuple[Check, str]], kind: str, body: Any, label: str) -> Action:
    match kind:
        case "vmap":
            return _vmap(table, found, body, label)
        case "mangle":
            return _mangle(body)
        case "dnat" | "redirect":
            return _dnat(kind, body or {}, label)
        case "snat" | "masquerade":
            return Action(Act.SNAT)
        case "queue":
            return Action(Act.QUEUE, detail=label)
        case "limit":
            raise _Unsupported(label)
    return verdict(kind, body, label)


def verdict(kind: str, body: Any, label: str = "") -> Action:
    match kind:
        case "accept":
            return Action(Act.ACCEPT)
        case "drop":
            return Action(Act.DROP)
        case "reject":
            return Action(Act.REJECT, detail=(body or {}).get("expr", "port-unreachable"))
        case "return":
            return Action(Act.RETURN)
        case "continue":
            return CONTINUE_ACTION
        case "jump":
            return Action(Act.JUMP, chain=body["target"])
        case "goto":
            return Action(Act.GOTO, chain=body["target"])
    return Action(Act.UNKNOWN, detail=label or kind)


def _match(table: NftTable, rule: Rule, body: Json) -> list[Check]:
    left, op, right = body["left"], body["op"], body["right"]
    positive, needs = _positive(table, rule, left, op, right)
    return [*needs, checks.negate(positive) if op == "!=" else positive]


def _positive(table: NftTable, rule: Rule, left: Json, op: str, right: Any) -> tuple[Check, list[Check]]:
    """The check for `left == right` and those that the left side brings along (a protocol)."""
    if not isinstance(left, dict):
        raise _Unsupported(str(left))
    (kind, body), *_ = left.items()
    if kind == "numgen":
        return _numgen_match(rule, body, op, right), []
    if kind == "fib":
        if body["result"] != "type" or not isinstance(right, str):
            raise _Unsupported("fib")
        side = checks.source_type_is if "saddr" in body["flags"] else checks.destination_type_is
        return side(right.upper()), []
    if kind == "ct" and body["key"] == "state":
        states = {right} if isinstance(right, str) else set(right["set"] if isinstance(right, dict) else right)
        return checks.ct_state_in(frozenset(s.upper() for s in states & _STATES)), []
    if kind == "&" and "meta" in body[0] and body[0]["meta"]["key"] == "mark" and not isinstance(right, dict):
        return checks.mark_is(number_of(right), number_of(body[1])), []
    if kind == "meta" and body["key"] == "mark" and isinstance(right, int):
        return checks.mark_is(right, ALL_BITS), []
    if kind == "meta" and body["key"] in ("iifname", "oifname") and isinstance(right, str) and right[0] != "@":
        return checks.device_is(right, out=body["key"] == "oifname", wildcard="*"), []
    getters, needs = _getters(left)
    if op in ("<", ">", "<=", ">="):
        return _compare(getters[0], op, number_of(right)), needs
    members = _members(table, right, len(getters))
    if kind == "payload" and body.get("field") == "daddr" and op == "==" and isinstance(number_of(right), int):
        rule.dst = number_of(right)
    return checks.in_set(getters, members), needs


def _members(table: NftTable, right: Any, width: int) -> SetLookup:
    if isinstance(right, str) and right.startswith("@"):
        found = table.sets.get(right[1:])
        if found is None:
            raise _Unsupported(right)
        return found
    members = SetLookup("", width)
    literal = right["set"] if isinstance(right, dict) and "set" in right else right
    add_elements(members, literal if isinstance(literal, list) else [literal])
    return members


def _getters(expression: Any) -> tuple[tuple[Getter, ...], list[Check]]:
    """Getters of a field or a concatenation, and the checks for the protocol that a field belongs to."""
    (kind, body), *_ = expression.items()
    if kind == "concat":
        parts = [_getters(part) for part in body]
        return tuple(g for getters, _ in parts for g in getters), [c for _, needs in parts for c in needs]
    if kind == "payload":
        return _payload(body["protocol"], body["field"])
    if kind == "meta":
        return (_META[body["key"]],), []
    if kind == "ct" and body["key"] in _CT:
        return (_CT[body["key"]],), []
    raise _Unsupported(kind)


def _payload(protocol: str, name: str) -> tuple[tuple[Getter, ...], list[Check]]:
    if protocol in ("ip", "ip6"):
        needs = [checks.family_is(4 if protocol == "ip" else 6)]
        getter: Getter = {
            "saddr": checks.get_source,
            "daddr": checks.get_destination,
            "protocol": checks.get_protocol,
            "nexthdr": checks.get_protocol,
        }[name]
        return (getter,), needs
    ports: dict[str, Getter] = {"sport": checks.get_sport, "dport": checks.get_dport}
    getter = ports.get(name, checks.always_unknown)
    if protocol in ("icmp", "icmpv6"):
        getter = {"type": _icmp_type, "code": _icmp_code}.get(name, checks.always_unknown)
    return (getter,), [] if protocol == "th" else [checks.protocol_is(PROTOCOLS[protocol])]


# Errors' types and codes as nft(8) names them, for IPv4 and IPv6.
_ICMP_TYPES = (
    {3: "destination-unreachable", 4: "source-quench", 5: "redirect", 11: "time-exceeded", 12: "parameter-problem"},
    {1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem"},
)
_ICMP_CODES = (
    {
        0: "net-unreachable",
        1: "host-unreachable",
        2: "prot-unreachable",
        3: "port-unreachable",
        4: "frag-needed",
        9: "net-prohibited",
        10: "host-prohibited",
        13: "admin-prohibited",
    },
    {
        0: "no-route",
        1: "admin-prohibited",
        3: "addr-unreachable",
        4: "port-unreachable",
        5: "policy-fail",
        6: "reject-route",
    },
)


def _icmp_type(s: State) -> str | int | None:
    return None if s.icmp is None else _ICMP_TYPES[s.family == 6].get(s.icmp[0], s.icmp[0])


def _icmp_code(s: State) -> str | int | None:
    return None if s.icmp is None else _ICMP_CODES[s.family == 6].get(s.icmp[1], s.icmp[1])


_META: dict[str, Getter] = {
    "l4proto": checks.get_protocol,
    "mark": checks.get_mark,
    "iifname": checks.get_in_device,
    "oifname": checks.get_out_device,
    "nfproto": lambda s: "ipv4" if s.family == 4 else "ipv6",
    "protocol": lambda s: "ip" if s.family == 4 else "ip6",
}
_CT: dict[str, Getter] = {
    "mark": checks.get_connmark,
    "state": lambda s: s.ct.lower(),
    "direction": lambda s: "original" if s.ct == "NEW" else None,
    "ip daddr": lambda s: s.orig_dst,
    "proto-dst": lambda s: s.orig_dport,
}


def _compare(getter: Getter, op: str, value: int) -> Check:
    def check(s: State) -> bool | None:
        have = getter(s)
        if have is None:
            return None
        return bool({"<": have < value, ">": have > value, "<=": have <= value, ">=": have >= value}[op])

    return check


def _numgen_match(rule: Rule, body: Json, op: str, right: Any) -> Check:
    low, high = bounds_of(right)
    share = {"==": high - low + 1, "<": low, "<=": low + 1}.get(op)
    if share is None:
        raise _Unsupported("numgen")
    rule.probability = share / body["mod"]
    return lambda s: True


def _vmap(table: NftTable, found: list[tuple[Check, str]], body: Json, label: str) -> Action:
    key, data = body["key"], body["data"]
    if isinstance(key, dict) and "numgen" in key:
        return _split(table, key["numgen"], data)
    getters, needs = _getters(key)
    found += [(check, label) for check in needs]
    members = _members(table, data, len(getters))
    compiled: dict[int, Action] = {}

    def lookup(s: State) -> Action | None:
        values = tuple(get(s) for get in getters)
        if None in values:
            return Action(Act.UNKNOWN, detail=label)
        value = members.get(values)
        if not isinstance(value, dict):
            return None
        action = compiled.get(id(value))
        if action is None:
            action = compiled[id(value)] = _element_action(value)
        return action

    return Action(Act.LOOKUP, lookup=lookup)


def _element_action(value: Json) -> Action:
    element = value.get("element")
    (kind, body), *_ = value.items()
    action = verdict(kind, body)
    return Action(action.kind, chain=action.chain, detail=action.detail, element=element)


def _split(table: NftTable, numgen: Json, data: Any) -> Action:
    """`numgen random mod N vmap { 0 : goto …, 1 : goto … }`: each entry with its share of N."""
    members = _members(table, data, 1)
    entries: list[tuple[tuple[Any, Any], Any]] = [((key[0], key[0]), value) for key, value in members.exact.items()]
    entries += [(bounds[0], value) for bounds, value in members.intervals]
    choices: list[tuple[float, Action]] = []
    for (low, high), value in sorted(entries, key=lambda e: int(e[0][0])):
        choices.append(((high - low + 1) / numgen["mod"], _element_action(value)))
    rest = 1 - sum(share for share, _ in choices)
    if rest > 1e-9:
        choices.append((rest, CONTINUE_ACTION))
    return Action(Act.SPLIT, choices=tuple(choices))


def _mangle(body: Json) -> Action:
    key, value = body["key"], body["value"]
    if "meta" not in key or key["meta"]["key"] != "mark":
        return CONTINUE_ACTION
    if isinstance(value, dict) and "ct" in value:
        return Action(Act.CONNMARK, detail="--restore-mark")
    keep, flip = _mark_function(value)
    return Action(Act.MARK, keep=keep, flip=flip)


def _mark_function(value: Any) -> tuple[int, int]:
    """(keep, flip) of an expression over the mark: new mark = (mark & keep) ^ flip."""
    if isinstance(value, int):
        return 0, value
    if isinstance(value, str):
        return 0, int(value, 0)
    (op, body), *_ = value.items()
    if op == "meta" and body["key"] == "mark":
        return ALL_BITS, 0
    if op not in ("&", "|", "^"):
        raise _Unsupported(op)
    keep, flip = _mark_function(body[0])
    number = number_of(body[1])
    if op == "&":
        return keep & number, flip & number
    if op == "^":
        return keep, flip ^ number
    return keep & ~number, (flip & ~number) | number


def _dnat(kind: str, body: Json, label: str) -> Action:
    address, port = body.get("addr"), body.get("port")
    if isinstance(address, dict) and "concat" in address:
        address, port = address["concat"]
    port = number_of(port)
    if kind == "redirect":
        return Action(Act.DNAT, address=-1, port=port if isinstance(port, int) else None, detail="REDIRECT")
    number = number_of(address)
    if not isinstance(number, int | None) or not isinstance(port, int | None):
        return Action(Act.UNKNOWN, detail=label)
    return Action(Act.DNAT, address=number, port=port)
