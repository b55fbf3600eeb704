"""One nftables rule, as JSON expressions, compiled to conditions and actions.

Source: libnftables-json(5), nft(8). What is not handled makes a condition, or ends in an action, that names it and
can't be answered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.conditions import FieldQuestion, asking
from kubectl_genainet.proxy.evaluator.ir import CONTINUE_ACTION, Act, Action, Chain, Rule
from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, Condition, State
from kubectl_genainet.proxy.nftables import values
from kubectl_genainet.proxy.nftables.fields import Field, field_of
from kubectl_genainet.proxy.nftables.maps import is_random, members_of, picked, question_bounds, share_of
from kubectl_genainet.proxy.nftables.marks import mark_action
from kubectl_genainet.proxy.nftables.nat import dnat, snat, tproxy
from kubectl_genainet.proxy.nftables.show import show_expressions
from kubectl_genainet.proxy.nftables.values import Json, Unsupported

if TYPE_CHECKING:
    from kubectl_genainet.proxy.nftables.read import NftTable

_NO_EFFECT = {
    *("counter", "log", "flow", "last", "secmark", "ct helper", "ct timeout", "ct expectation", "comment", "dup"),
    *("tcp option", "nfacct", "delete"),
}
_STATES = {"new", "established", "related", "invalid", "untracked"}
_CHANGES = (Act.MARK, Act.CONNMARK, Act.TOS, Act.TTL, Act.NOTRACK, Act.ADD, Act.LOOKUP, Act.SPLIT, Act.UNKNOWN)
_ENDING = {Act.JUMP, Act.GOTO, Act.RETURN, Act.ACCEPT, Act.DROP, Act.REJECT, Act.DNAT, Act.SNAT, Act.QUEUE}
_ENDING |= {Act.UNKNOWN, Act.LOOKUP, Act.SPLIT}
_XT_CONTINUES = {"LOG", "NFLOG", "TRACE", "AUDIT", "CHECKSUM", "CLASSIFY", "TCPMSS", "SET", "TEE", "comment"}


class _Compiler:
    """Gathers the conditions and actions of one rule, in order."""

    def __init__(self, table: NftTable, rule: Rule) -> None:
        self.table, self.rule = table, rule
        self.found: list[tuple[Condition, str]] = []
        self.actions: list[Action] = []
        self.unread = ""  # a statement that is not read

    def condition(self, condition: Condition, label: str) -> None:
        """A condition; behind a change of the packet it is one of the actions, since it may ask for what was changed."""
        if any(action.kind in _CHANGES for action in self.actions):
            self.actions.append(Action(Act.CONDITION, condition=condition, detail=label))
        else:
            self.found.append((condition, label))

    def add(self, kind: str, body: Any, label: str) -> None:
        if kind == "match":
            for condition in _match(self.table, self.rule, body):
                self.condition(condition, label)
        elif kind in ("limit", "quota", "ct count", "connlimit"):
            self.condition(_limit(kind, body, label), label)
        elif kind in ("set", "meter", "map") and isinstance(body, dict):
            if (field := _key_of(kind, body)) is not None:
                for need in field.needs:
                    self.condition(need, label)
                if kind == "set" and body.get("op") in ("add", "update"):
                    name = f"{self.table.title} {str(body['set']).lstrip('@')}"
                    self.actions.append(Action(Act.ADD, detail=name, keys=field.getters))
            inside = body.get("stmt") or ()
            for inner in (inside,) if isinstance(inside, dict) else inside:
                (inner_kind, inner_body), *_ = inner.items()
                if inner_kind not in _NO_EFFECT:
                    self.add(inner_kind, inner_body, show_expressions([inner]))
        elif kind not in _NO_EFFECT:
            action, needs = _statement(self.table, kind, body, label)
            for need in needs:
                self.condition(need, label)
            self.actions.append(action)


def compile_rule(table: NftTable, chain: Chain, number: int, raw: Json) -> Rule:
    rule = Rule(chain, number, raw)
    compiler = _Compiler(table, rule)
    if chain.devices:
        tests = [conditions.device_is(d, out=chain.hook_name == "egress", wildcard="*") for d in chain.devices]
        compiler.condition(conditions.any_of(tests), f"device {', '.join(chain.devices)}")
    if table.flags_unread and chain.hook is not None:
        compiler.condition(
            conditions.always_unknown, f"whether table {table.title} is dormant, which this JSON of nft garbles"
        )
    entries = raw.get("expr")
    for entry in entries if isinstance(entries, list) else ["a rule without expressions"]:
        _add(table, compiler, entry)
    rule.conditions, rule.labels = tuple(c for c, _ in compiler.found), tuple(text for _, text in compiler.found)
    if compiler.unread and not any(action.kind in _ENDING for action in compiler.actions):
        compiler.actions.append(Action(Act.UNKNOWN, detail=compiler.unread))  # it may be what decides
    rule.actions = tuple(compiler.actions)
    rule.by_destination = True  # which of nftables' expressions ask for it is not looked into
    rule.finish()
    return rule


def _add(table: NftTable, compiler: _Compiler, entry: Any) -> None:
    if isinstance(entry, str):  # what libnftables has no JSON for, as text: a chain without a name
        entry = table.inline_text(entry) or {entry: None}
    if not isinstance(entry, dict) or not entry:
        compiler.condition(conditions.always_unknown, str(entry)[:200])
        compiler.unread = str(entry)[:200]
        return
    (kind, body), *_ = entry.items()
    label = show_expressions([entry])
    try:
        compiler.add(kind, body, label)
    except (Unsupported, KeyError, TypeError, ValueError, IndexError, AttributeError):
        compiler.condition(conditions.always_unknown, label)
        if kind not in _MATCHES:
            compiler.unread = compiler.unread or label


_MATCHES = {"match", "limit", "quota", "ct count", "set", "meter"}


def _key_of(kind: str, body: Json) -> Field | None:
    """What a rule adds to a set, where rules behind it find the packet; None where it is not read."""
    element = body.get("elem" if kind == "set" else "key")
    if isinstance(element, dict) and "elem" in element:
        element = element["elem"]["val"]
    try:
        return field_of(element)
    except Unsupported:
        return None


def _statement(table: NftTable, kind: str, body: Any, label: str) -> tuple[Action, tuple[Condition, ...]]:
    match kind:
        case "vmap":
            return picked(table, body["key"], body["data"], lambda v: _element_action(table, v), label)
        case "mangle":
            return mark_action(table, body, label)
        case "dnat" | "redirect":
            return dnat(table, kind, body or {}, label)
        case "snat":
            return snat(table, body or {}, label)
        case "masquerade":
            return Action(Act.SNAT, detail="MASQUERADE"), ()
        case "notrack":
            return Action(Act.NOTRACK), ()
        case "tproxy":
            return tproxy(body), ()
        case "queue":
            return Action(Act.QUEUE, detail=label), ()
        case "reject":
            return _reject(body)
        case "xt":
            return _xt(body, label)
    return verdict(table, kind, body, label), ()


def _reject(body: Any) -> tuple[Action, tuple[Condition, ...]]:
    """A TCP reset is for TCP alone, an ICMP error for its own family: nft puts that in front (stmt_evaluate_reject)."""
    body = body if isinstance(body, dict) else {}
    kind = str(body.get("type", ""))
    needs: tuple[Condition, ...] = ()
    if kind.startswith("tcp"):
        needs = (conditions.protocol_is(PROTOCOLS["tcp"]),)
    elif kind in ("icmp", "icmpv6"):
        needs = (conditions.family_is(4 if kind == "icmp" else 6),)
    return Action(Act.REJECT, detail=str(body.get("expr", "port-unreachable"))), needs


def _xt(body: Any, label: str) -> tuple[Action, tuple[Condition, ...]]:
    """An extension of iptables that nft does not print: a match may fail, a target may do anything."""
    if isinstance(body, dict) and body.get("type") == "target":
        if body.get("name") in _XT_CONTINUES:
            return CONTINUE_ACTION, ()
        return Action(Act.UNKNOWN, detail=label), ()
    if isinstance(body, dict) and body.get("name") in ("comment",):
        return CONTINUE_ACTION, ()
    raise Unsupported(label)


def verdict(table: NftTable, kind: str, body: Any, label: str = "") -> Action:
    match kind:
        case "accept":
            return Action(Act.ACCEPT)
        case "drop":
            return Action(Act.DROP)
        case "reject":
            return _reject(body)[0]
        case "return":
            return Action(Act.RETURN)
        case "continue":
            return CONTINUE_ACTION
        case "jump" | "goto":
            target = body["target"] if "rules" not in body else table.inline(body["rules"])
            if not isinstance(target, str):
                raise Unsupported(label or kind)
            return Action(Act.JUMP if kind == "jump" else Act.GOTO, chain=target)
    if kind not in _STATEMENTS_WITHOUT_VERDICT:
        raise Unsupported(label or kind)
    return Action(Act.UNKNOWN, detail=label or kind)


# Statements that decide in ways that are not followed: the verdict is then not known, whatever comes after.
_STATEMENTS_WITHOUT_VERDICT = {"synproxy", "fwd"}


def _element_action(table: NftTable, value: Any) -> Action:
    if not isinstance(value, dict):
        raise Unsupported(str(value))
    element = value.get("element")
    (kind, body), *_ = value.items()
    return replace(verdict(table, kind, body), element=element)


def _limit(kind: str, body: Any, label: str) -> Condition:
    """A limit of rate, volume or number that the first packet does not reach. This is said."""
    if isinstance(body, str):  # of a named object: whether it is inverted stands there
        return conditions.always_unknown
    inverted = bool(body.get("inv"))
    if kind == "ct count":
        over = int(body["val"]) < 1
        return conditions.assuming("the client has no other connection", over if inverted else not over)
    return conditions.assuming(f"{label} is not reached", not inverted)


def _match(table: NftTable, rule: Rule, body: Json) -> list[Condition]:
    left, op, right = body["left"], body["op"], body["right"]
    if isinstance(left, dict) and is_random(left) == "numgen":
        if rule.probability is not None:
            raise Unsupported("a second random number")
        rule.probability = share_of(left["numgen"], op, right)
        return []
    if isinstance(left, dict) and (special := _special(left, op, right)) is not None:
        return special
    field = field_of(left)
    try:
        return [*field.needs, *_compared(table, rule, field, body)]
    except (Unsupported, ValueError):
        if not field.needs:
            raise
        return [*field.needs, conditions.always_unknown]


def _compared(table: NftTable, rule: Rule, field: Field, body: Json) -> list[Condition]:
    """A field beside what is on the right."""
    left, op, right = body["left"], body["op"], body["right"]
    if op in ("<", ">", "<=", ">="):
        return [_compare(field.getters[0], op, values.single(right, field.converts[0]))]
    in_set = isinstance(right, dict) and "set" in right
    if field.bits and op in ("in", "!") and not in_set and not (isinstance(right, str) and right.startswith("@")):
        return [_has_bits(field.getters[0], values.single(right, field.converts[0]), op == "!")]
    if isinstance(right, list) and not in_set:
        right = right if field.bits else {"set": right}
        members = members_of(table, {"set": [{"|": right}]} if field.bits else right, field.converts)
    else:
        members = members_of(table, right, field.converts)
    if isinstance(right, str) and right.startswith("@"):
        positive = conditions.in_changing_set(f"{table.title} {right[1:]}", field.getters, members)
    else:
        positive = conditions.in_set(field.getters, members)
    bounds = question_bounds(field, right)
    if bounds is not None:
        if bounds == ("lo", "lo"):
            positive = _of_loopback(positive, out=field.question == "out device")
        positive = asking(positive, FieldQuestion(field.question, *bounds))
    _index(rule, left, op, right)
    return [conditions.negate(positive) if op in ("!=", "!") else positive]


def _of_loopback(condition: Condition, *, out: bool) -> Condition:
    def known(s: State) -> bool | None:
        if (s.oif if out else s.iif) is None and not conditions.may_be_loopback(s, out=out):
            return False
        return condition(s)

    return known


def _index(rule: Rule, left: Any, op: str, right: Any) -> None:
    """The only destination, where the rule asks for one: long chains are then looked up, not walked."""
    if op != "==" or not isinstance(left, dict) or not isinstance(right, str) or right.startswith("@"):
        return
    payload = left.get("payload")
    if isinstance(payload, dict) and payload.get("field") == "daddr" and payload.get("protocol") in ("ip", "ip6"):
        rule.dst = values.single(right, values.plain)


def _special(left: Json, op: str, right: Any) -> list[Condition] | None:
    """Fields of which a part may be known: marks bit by bit, connection states, address types."""
    (kind, body), *_ = left.items()
    negative = op in ("!=", "!")
    if kind == "ct" and body["key"] == "state":
        states = {right} if isinstance(right, str) else set(right["set"] if isinstance(right, dict) else right)
        if not all(isinstance(state, str) for state in states) or not states <= _STATES:
            return None
        condition = conditions.ct_state_in(frozenset(str(s).upper() for s in states))
    elif kind == "fib" and body.get("result") == "type" and not {"iif", "oif"} & set(body["flags"]):
        kinds = [right] if isinstance(right, str) else right["set"] if isinstance(right, dict) else right
        side = conditions.source_type_is if "saddr" in body["flags"] else conditions.destination_type_is
        condition = conditions.any_of([side(str(k).upper()) for k in kinds])
    else:
        of_mark = _mark_is(kind, body, right)
        if of_mark is None:
            return None
        condition, needs = of_mark
        return [*needs, conditions.negate(condition) if negative else condition]
    return [conditions.negate(condition) if negative else condition]


def _mark_is(kind: str, body: Any, right: Any) -> tuple[Condition, list[Condition]] | None:
    mask, field = ALL_BITS, {kind: body}
    if kind == "&" and body[0] in ({"meta": {"key": "mark"}}, {"ct": {"key": "mark"}}):
        field, mask = body[0], values.single(body[1], values.plain)
    if isinstance(right, dict | list) or (isinstance(right, str) and right.startswith("@")):
        return None
    if field == {"meta": {"key": "mark"}}:
        return conditions.mark_is(values.single(right, values.plain), mask), []
    if field == {"ct": {"key": "mark"}}:
        return conditions.connmark_is(values.single(right, values.plain), mask), [lambda s: s.traced]
    return None


def _has_bits(getter: conditions.Getter, bits: int, inverted: bool) -> Condition:
    def condition(s: Any) -> bool | None:
        value = getter(s)
        return None if value is None else (value & bits != 0) is not inverted

    return condition


def _compare(getter: conditions.Getter, op: str, value: int) -> Condition:
    def condition(s: Any) -> bool | None:
        have = getter(s)
        if have is None:
            return None
        return bool({"<": have < value, ">": have > value, "<=": have <= value, ">=": have >= value}[op])

    return condition
