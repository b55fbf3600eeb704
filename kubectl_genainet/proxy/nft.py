"""nftables rulesets, from the objects of `nft -j list ruleset` (libnftables-json(5)).

`nft_text` turns listings and transactions into the same objects.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.proxy.checks import PROTOCOLS
from kubectl_genainet.proxy.ir import Chain, Rule, SetLookup, Table
from kubectl_genainet.proxy.model import Hook, RuleRef
from kubectl_genainet.proxy.nft_show import show_expressions

Json = dict[str, Any]

_FAMILIES = {"ip": 4, "ip6": 6, "inet": 0}
# Names that nft prints for standard priorities (nft(8), "Standard priority names"); the family is not bridge.
PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_PRIORITY = re.compile(r"([a-z]*)\s*([+-]?)\s*(\d*)")
_SERVICES = {"domain": 53, "http": 80, "https": 443, "ssh": 22}  # only where a listing was made without -n


class NftTable(Table):
    """One table; `sets` has its named sets and maps. A map's values are verdict objects as JSON has them."""

    def __init__(self, family: str, name: str) -> None:
        super().__init__(name, _FAMILIES.get(family, 0), "nft")
        self.family_name = family
        self.sets: dict[str, SetLookup] = {}

    @property
    def title(self) -> str:
        return f"{self.family_name} {self.name}"

    def chain(self, name: str) -> Chain:
        return self.chains.setdefault(name, Chain(self, name))

    def compile(self, chain: Chain) -> list[Rule]:
        from kubectl_genainet.proxy.nft_rule import compile_rule

        return [compile_rule(self, chain, number, raw) for number, raw in enumerate(chain.raw, 1)]

    def describe(self, rule: Rule) -> RuleRef:
        raw: Json = rule.raw
        text = raw.get("text") or show_expressions(raw.get("expr", []))
        counter: Json = next((e["counter"] for e in raw.get("expr", []) if isinstance(e.get("counter"), dict)), {})
        return RuleRef(
            self.title, rule.chain.name, rule.index, text, raw.get("comment", ""),
            counter.get("packets"), counter.get("bytes"),
        )  # fmt: skip


def parse_nft_json(text: str) -> list[NftTable]:
    """The tables of `nft -j list ruleset`. Raises InputError for text that is not its output."""
    try:
        objects = msgspec.json.decode(text)["nftables"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise InputError(f"this is no output of `nft -j list ruleset`: {error}") from None
    return build_tables(objects)


def build_tables(objects: list[Json]) -> list[NftTable]:
    """Tables from JSON objects, in order. Tables of families other than ip, ip6 and inet are left out."""
    tables: dict[tuple[str, str], NftTable] = {}

    def table(obj: Json) -> NftTable | None:
        family, name = obj.get("family", "ip"), obj.get("table", "")
        if family not in _FAMILIES:
            return None
        return tables.setdefault((family, name), NftTable(family, name))

    for entry in objects:
        entry = entry.get("add", entry)
        for kind, obj in entry.items():
            if kind == "table" and obj.get("family") in _FAMILIES:
                table({"family": obj["family"], "table": obj["name"]})
                continue
            owner = table(obj) if kind in ("chain", "rule", "set", "map", "element") else None
            if owner is not None:
                _add(owner, kind, obj)
    return list(tables.values())


def _add(table: NftTable, kind: str, obj: Json) -> None:
    if kind == "chain":
        chain = table.chain(obj["name"])
        if "hook" in obj:
            chain.hook, chain.kind = Hook.named(obj["hook"]), obj.get("type", "filter")
            chain.priority, chain.policy = int(obj.get("prio", 0)), obj.get("policy", "accept").upper()
    elif kind == "rule":
        table.chain(obj["chain"]).raw.append(obj)
    else:
        kinds = obj.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        found = table.sets.setdefault(obj["name"], SetLookup(" . ".join(map(str, kinds)), len(kinds)))
        add_elements(found, obj.get("elem", []), title=table.title, name=obj["name"])


def add_elements(found: SetLookup, elements: list[Any], *, title: str = "", name: str = "") -> None:
    """Adds JSON elements: plain keys for a set, [key, value] pairs for a map."""
    for number, element in enumerate(elements, 1):
        key, value = element if isinstance(element, list) and len(element) == 2 else (element, True)
        comment = ""
        if isinstance(key, dict) and "elem" in key:
            comment = key["elem"].get("comment", "")
            key = key["elem"]["val"]
        parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
        bounds = tuple(bounds_of(part) for part in parts)
        if comment and isinstance(value, dict):
            shown = show_expressions([value])
            value = {**value, "element": RuleRef(title, f"map {name}", number, _shown_key(parts, shown), comment)}
        if all(low == high for low, high in bounds):
            found.exact[tuple(low for low, _ in bounds)] = value
        else:
            found.intervals.append((bounds, value))


def _shown_key(parts: list[Any], verdict: str) -> str:
    return f"{' . '.join(map(str, parts))} : {verdict}"


def bounds_of(value: Any) -> tuple[Any, Any]:
    """Lowest and highest value of a literal, prefix or range; equal for a literal."""
    if isinstance(value, dict):
        if "prefix" in value:
            net = ipaddress.ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)
            return int(net.network_address), int(net.broadcast_address)
        if "range" in value:
            low, high = value["range"]
            return number_of(low), number_of(high)
        if "elem" in value:
            return bounds_of(value["elem"]["val"])
    if value == "*":
        return 0, (1 << 128) - 1
    number = number_of(value)
    return number, number


def number_of(value: Any) -> Any:
    """A literal as the state holds it: addresses and protocols as numbers, other words as they are."""
    if not isinstance(value, str):
        return value
    if value in PROTOCOLS:
        return PROTOCOLS[value]
    if value in _SERVICES:
        return _SERVICES[value]
    try:
        return int(value, 0)
    except ValueError:
        pass
    try:
        return int(ipaddress.ip_address(value))
    except ValueError:
        return value


def priority_number(text: str) -> int:
    """ "dstnat - 10", "srcnat + 1", "-110" or "filter" as a number; 0 where it can't be read."""
    match = _PRIORITY.fullmatch(text.strip())
    if match is None:
        return 0
    name, sign, digits = match.groups()
    return PRIORITIES.get(name, 0) + (int(digits) if digits else 0) * (-1 if sign == "-" else 1)
