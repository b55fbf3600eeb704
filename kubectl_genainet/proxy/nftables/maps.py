"""Sets and maps of nft as rules ask them, and values that a rule picks from a map: verdicts, destinations, marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kubectl_genainet.proxy.evaluator.ir import CONTINUE_ACTION, Act, Action
from kubectl_genainet.proxy.evaluator.packet.state import Condition, State
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.evaluator.sets import ANY, SetLookup
from kubectl_genainet.proxy.nftables import values
from kubectl_genainet.proxy.nftables.fields import Field, field_of
from kubectl_genainet.proxy.nftables.show import show_expressions
from kubectl_genainet.proxy.nftables.values import Convert, Json, Unsupported, bounds_of

if TYPE_CHECKING:
    from kubectl_genainet.proxy.nftables.read import NftTable

MAX_SPLIT = 64  # numbers of a generator that are told apart
MAX_MOD = 65536  # of a random number that is compared


def members_of(table: NftTable, right: Any, converts: Sequence[Convert]) -> SetLookup:
    """The set or map on the right side: a named one, or the constants that stand there. Raises Unsupported."""
    if isinstance(right, str) and right.startswith("@"):
        return table.lookup(right[1:], tuple(converts))
    literal = right["set"] if isinstance(right, dict) and "set" in right else right
    members = SetLookup("", len(converts))
    add_elements(members, literal if isinstance(literal, list) else [literal], converts)
    return members


def add_elements(
    lookup: SetLookup, elements: Sequence[Any], converts: Sequence[Convert], *, title: str = "", name: str = ""
) -> None:
    """Adds JSON elements: plain keys for a set, [key, value] pairs for a map."""
    for number, element in enumerate(elements, 1):
        key, value = element if isinstance(element, list) and len(element) == 2 else (element, True)
        comment = ""
        if isinstance(key, dict) and isinstance(key.get("elem"), dict):
            comment = str(key["elem"].get("comment", ""))
            key = key["elem"]["val"]
        parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
        if len(parts) != len(converts):
            if parts != ["*"]:
                raise Unsupported(f"element {parts}")
            parts = ["*"] * len(converts)
        bounds = tuple(bounds_of(part, convert) for part, convert in zip(parts, converts, strict=True))
        if comment and isinstance(value, dict):
            shown = show_expressions([value])
            value = {**value, "element": RuleRef(title, f"map {name}", number, _shown_key(parts, shown), comment)}
        if all(low == high for low, high in bounds) and parts[0] != "*":
            lookup.exact[tuple(low for low, _ in bounds)] = value
        else:
            lookup.intervals.append((bounds, value))
    lookup.intervals.sort(key=lambda entry: entry[0] and entry[0][0][0] is ANY)  # the default comes last


def _shown_key(parts: Sequence[Any], verdict: str) -> str:
    return f"{' . '.join(map(str, parts))} : {verdict}"


def picked(
    table: NftTable, key: Any, data: Any, act: Callable[[Any], Action], label: str
) -> tuple[Action, tuple[Condition, ...]]:
    """The action for what a map gives, and what the key needs. A key that no element has ends the rule."""
    if isinstance(key, dict) and (generator := is_random(key)):
        return _by_chance(table, generator, key, data, act), ()
    if isinstance(key, dict) and (constant := constant_of(key)) is not None:
        return _of_constant(table, constant, data, act), ()
    field = field_of(key)
    members = members_of(table, data, field.converts)
    compiled: dict[int, Action] = {}

    def lookup(s: State) -> Action | None:
        key_values = tuple(get(s) for get in field.getters)
        if None in key_values:
            return None if members.may_have(key_values) is False else Action(Act.UNKNOWN, detail=label)
        value = members.get(key_values)
        if value is None:
            return Action(Act.UNKNOWN, detail=members.unread) if members.unread else None
        action = compiled.get(id(value))
        if action is None:
            try:
                action = act(value)
            except (Unsupported, KeyError, TypeError, ValueError, IndexError) as error:
                action = Action(Act.UNKNOWN, detail=f"{label}: {error}")
            compiled[id(value)] = action
        return action

    return Action(Act.LOOKUP, lookup=lookup), field.needs


def is_random(key: Json) -> str:
    """The generator of a key that is a random number or a hash of more than one value, else ""."""
    kind = next(iter(key), "")
    body = key.get(kind)
    random = kind in ("numgen", "jhash", "symhash") and isinstance(body, dict) and body.get("mod", 1) != 1
    return kind if random else ""


def constant_of(key: Json) -> int | None:
    """The only number of a generator of one value ("numgen random mod 1", as kube-proxy writes for a single endpoint)."""
    kind = next(iter(key), "")
    body = key.get(kind)
    if kind not in ("numgen", "jhash", "symhash") or not isinstance(body, dict) or body.get("mod") != 1:
        return None
    return int(body.get("offset", 0) or 0)


def split_evenly(key: Json, act: Callable[[int], Action]) -> Action | None:
    """The action for each number that a generator may give; None where the key is none, or has too many."""
    constant = constant_of(key)
    if constant is not None:
        return act(constant)
    generator = is_random(key)
    if not generator or int(key[generator]["mod"]) > MAX_SPLIT:
        return None
    mod, offset = int(key[generator]["mod"]), int(key[generator].get("offset", 0) or 0)
    share = 1 / mod if generator == "numgen" else None
    return Action(Act.SPLIT, choices=tuple((share, act(number)) for number in range(offset, offset + mod)))


def _of_constant(table: NftTable, number: int, data: Any, act: Callable[[Any], Action]) -> Action:
    """What a map gives for a number that is known when the rule is read; without an element, the rule ends."""
    members = members_of(table, data, (values.plain,))
    value = members.get((number,))
    if value is not None:
        return act(value)
    return Action(Act.UNKNOWN, detail=members.unread) if members.unread else CONTINUE_ACTION


def _by_chance(table: NftTable, generator: str, key: Json, data: Any, act: Callable[[Any], Action]) -> Action:
    """Each element with its share of the numbers; what no element has ends the rule. A hash has no shares."""
    body = key[generator]
    mod, offset = int(body["mod"]), int(body.get("offset", 0) or 0)
    members = members_of(table, data, (values.plain,))
    entries = [(key[0], key[0], value) for key, value in members.exact.items()]
    entries += [(bounds[0][0], bounds[0][1], value) for bounds, value in members.intervals]
    choices: list[tuple[float | None, Action]] = []
    taken = 0
    for low, high, value in entries:  # the default, for all other numbers, comes last
        if isinstance(low, int) and isinstance(high, int):
            count = max(0, min(high, offset + mod - 1) - max(low, offset) + 1)
        else:
            count = mod - taken
        taken += count
        if count:
            choices.append((count / mod if generator == "numgen" else None, act(value)))
    if taken < mod:
        choices.append(((mod - taken) / mod if generator == "numgen" else None, CONTINUE_ACTION))
    return Action(Act.SPLIT, choices=tuple(choices))


def share_of(field_body: Json, op: str, right: Any) -> float:
    """The share of a random number's values that a comparison holds for."""
    mod, offset = int(field_body["mod"]), int(field_body.get("offset", 0) or 0)
    if mod > MAX_MOD:
        raise Unsupported("numgen")
    if op in ("<", ">", "<=", ">="):
        bound = values.single(right, values.plain)
        holds: Callable[[int], bool] = {
            "<": lambda v: v < bound,
            ">": lambda v: v > bound,
            "<=": lambda v: v <= bound,
            ">=": lambda v: v >= bound,
        }[op]
    else:
        members = SetLookup("", 1)
        literal = right["set"] if isinstance(right, dict) and "set" in right else right
        add_elements(members, literal if isinstance(literal, list) else [literal], (values.plain,))
        holds = lambda v: (members.get((v,)) is not None) is (op != "!=")  # noqa: E731
    return sum(holds(value) for value in range(offset, offset + mod)) / mod


def question_bounds(field: Field, right: Any) -> tuple[Any, Any] | None:
    """The bounds of a comparison with one constant, for fields that may be unknown."""
    if not field.question or isinstance(right, list) or (isinstance(right, dict) and "set" in right):
        return None
    if isinstance(right, str) and right.startswith("@"):
        return None
    return field.converts[0](right)
