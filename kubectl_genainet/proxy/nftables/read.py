"""nftables rulesets, from the objects of `nft -j list ruleset` (libnftables-json(5)).

`nft_text` turns listings and transactions into the same objects.
"""

from __future__ import annotations

import re

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.proxy.evaluator.ir import Chain, Rule, SetLookup, Table
from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef
from kubectl_genainet.proxy.nftables.literals import Json, add_elements
from kubectl_genainet.proxy.nftables.rule import compile_rule
from kubectl_genainet.proxy.nftables.show import show_expressions

_FAMILIES = {"ip": 4, "ip6": 6, "inet": 0}
# Names that nft prints for standard priorities (nft(8), "Standard priority names"); the family is not bridge.
PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_PRIORITY = re.compile(r"([a-z]*)\s*([+-]?)\s*(\d*)")


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
        return [compile_rule(self, chain, number, raw) for number, raw in enumerate(chain.raw, 1)]

    def describe(self, rule: Rule) -> RuleRef:
        raw: Json = rule.raw
        text = raw.get("text") or show_expressions(raw.get("expr", []))
        counter: Json = next((e["counter"] for e in raw.get("expr", []) if isinstance(e.get("counter"), dict)), {})
        return RuleRef(
            self.title,
            rule.chain.name,
            rule.index,
            text,
            raw.get("comment", ""),
            counter.get("packets"),
            counter.get("bytes"),
        )


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


def priority_number(text: str) -> int:
    """ "dstnat - 10", "srcnat + 1", "-110" or "filter" as a number; 0 where it can't be read."""
    match = _PRIORITY.fullmatch(text.strip())
    if match is None:
        return 0
    name, sign, digits = match.groups()
    return PRIORITIES.get(name, 0) + (int(digits) if digits else 0) * (-1 if sign == "-" else 1)
