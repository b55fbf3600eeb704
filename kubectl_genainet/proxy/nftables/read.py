"""nftables rulesets, from the objects of `nft -j list ruleset` (libnftables-json(5)).

`nft_text` turns listings and transactions into the same objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS, InputError
from kubectl_genainet.proxy.evaluator.ir import Chain, Rule, Table
from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef
from kubectl_genainet.proxy.evaluator.sets import SetLookup
from kubectl_genainet.proxy.nftables import values
from kubectl_genainet.proxy.nftables.language.words import inline_chain
from kubectl_genainet.proxy.nftables.maps import add_elements
from kubectl_genainet.proxy.nftables.rule import compile_rule
from kubectl_genainet.proxy.nftables.show import show_expressions
from kubectl_genainet.proxy.nftables.values import Convert, Json, Unsupported

_FAMILIES = {"ip": 4, "ip6": 6, "inet": 0, "netdev": 0}
_DEVICE_HOOKS = {"ingress": Hook.INGRESS, "egress": Hook.EGRESS}
# How the elements of a set are read where no rule says it: by the set's declared type.
_TYPES: dict[str, Convert] = {
    "inet_proto": values.protocol,
    "inet_service": values.port,
    "ifname": values.device,
    "iface_index": values.device,
    "ct_state": values.words,
    "icmp_type": values.icmp_type,
    "icmpv6_type": values.icmpv6_type,
    "dscp": values.dscp,
    "tcp_flag": values.tcp_flags,
    "pkt_type": values.packet_type,
    "nf_proto": values.family,
    "ether_type": values.ether_type,
    "fib_addrtype": values.words,
}


# Of nft(8); a name that is none of these is what nft 1.0.6 prints in their place.
# What a rule had counted when it was read says nothing of the packet that is judged, and stands in a field of its own.
_COUNTED = re.compile(r"\bcounter packets \d+ bytes \d+")
_TABLE_FLAGS = {"dormant", "owner", "persist"}
_POLICY_DROP: Json = {"expr": [{"drop": None}], "text": "policy drop"}


class NftTable(Table):
    """One table; `elements` has its named sets and maps. A map's values are verdict objects as JSON has them."""

    def __init__(self, family: str, name: str) -> None:
        super().__init__(name, _FAMILIES.get(family, 0), "nft")
        self.family_name = family
        self.elements: dict[str, list[Any]] = {}
        self.types: dict[str, list[str]] = {}
        self.sets: dict[str, SetLookup] = {}
        self.dormant = False
        self.flags_unread = False  # whether it is dormant is then not known
        self._lookups: dict[tuple[str, tuple[Convert, ...]], SetLookup] = {}

    @property
    def title(self) -> str:
        return f"{self.family_name} {self.name}"

    def chain(self, name: str) -> Chain:
        return self.chains.setdefault(name, Chain(self, name))

    def compile(self, chain: Chain) -> list[Rule]:
        raws = [*chain.raw, *([_POLICY_DROP] if chain.drops_rest else ())]
        return [compile_rule(self, chain, number, raw) for number, raw in enumerate(raws, 1)]

    def describe(self, rule: Rule) -> RuleRef:
        raw: Json = rule.raw
        expressions = raw.get("expr") if isinstance(raw.get("expr"), list) else []
        text = _COUNTED.sub("counter", str(raw.get("text") or "")) or show_expressions(expressions or [])
        packets, size = counters_of(raw)
        comment = str(raw.get("comment") or "")
        return RuleRef(self.title, rule.chain.name, rule.index, text, comment, packets, size)

    def lookup(self, name: str, converts: tuple[Convert, ...]) -> SetLookup:
        """A named set or map, its constants read as the fields beside it are. Raises Unsupported."""
        known = self._lookups.get((name, converts))
        if known is None:
            if name not in self.elements:
                raise Unsupported(f"@{name}, which is not in the dump")
            known = SetLookup(" . ".join(self.types.get(name, ())), len(converts))
            try:
                add_elements(known, self.elements[name], converts, title=self.title, name=name)
            except (Unsupported, KeyError, TypeError, ValueError) as error:
                known.unread = f"set {name} of table {self.title}: {error}"
            self._lookups[(name, converts)] = known
        return known

    def declared(self, name: str) -> SetLookup | None:
        """A named set or map as its own type reads it; None where there is none."""
        if name not in self.elements:
            return None
        converts = tuple(_TYPES.get(kind, values.guessed) for kind in self.types.get(name) or ("",))
        return self.lookup(name, converts)

    def inline(self, rules: list[Json]) -> str:
        """A chain without a name, as one with a name that no listing has."""
        name = f"chain without a name {len(self.chains)}"
        self.chain(name).raw.extend(rules)
        return name

    def inline_text(self, text: str) -> Json | None:
        """`jump { … }`, which libnftables gives as text, as an expression; None where it is not that."""
        return inline_chain(text)


def counters_of(raw: Json) -> tuple[int | None, int | None]:
    """(packets, bytes) of a rule's own counter; None where it has none, or one with a name."""
    for entry in raw.get("expr") or ():
        body = entry.get("counter") if isinstance(entry, dict) else None
        if isinstance(body, dict):
            packets, size = body.get("packets"), body.get("bytes")
            return packets if isinstance(packets, int) else None, size if isinstance(size, int) else None
    return None, None


def parse_nft_json(text: str) -> tuple[list[NftTable], list[str]]:
    """The tables of `nft -j list ruleset`, and what could not be read. Raises InputError for other text."""
    try:
        objects = msgspec.json.decode(text)["nftables"]
    except (KeyError, TypeError, *DECODE_ERRORS) as error:
        advice = (
            "; save `nft list ruleset`, as nft 1.0.6 cuts its JSON at a table with flags" if '"flags"' in text else ""
        )
        raise InputError(f"this is no output of `nft -j list ruleset`: {error}{advice}") from None
    if not isinstance(objects, list):
        raise InputError("this is no output of `nft -j list ruleset`: its objects are no list")
    return build_tables(objects)


def build_tables(objects: Iterable[Any]) -> tuple[list[NftTable], list[str]]:
    """Tables from JSON objects, in order, and what could not be read. Families arp and bridge are left out."""
    builder = _Builder()
    for entry in objects:
        if not isinstance(entry, dict) or not entry:
            builder.unread.append(f"an entry that is no object: {str(entry)[:80]}")
            continue
        (command, obj), *_ = entry.items()
        if command in ("add", "insert", "create", "delete", "destroy", "flush", "replace") and isinstance(obj, dict):
            (kind, body), *_ = obj.items() if obj else (("", None),)
        else:
            command, kind, body = "add", command, obj
        try:
            builder.apply(command, kind, body)
        except (KeyError, TypeError, ValueError, AttributeError, Unsupported):
            builder.unread.append(f"{kind} that can't be read: {str(body)[:80]}")
    for table in builder.tables.values():
        if table.flags_unread:
            for chain in table.chains.values():
                _policy_as_rule(chain)
    return [t for t in builder.tables.values() if not t.dormant], builder.unread


class _Builder:
    """Applies the commands of a listing or of a transaction to tables."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], NftTable] = {}
        self.unread: list[str] = []

    def table(self, family: str, name: str) -> NftTable | None:
        if family not in _FAMILIES:
            return None
        table = self.tables.get((family, name))
        if table is None:
            table = self.tables[(family, name)] = NftTable(family, name)
            table.number = len(self.tables)
        return table

    def apply(self, command: str, kind: str, obj: Any) -> None:
        if command in ("delete", "destroy", "flush"):
            self._remove(command, kind, obj or {})
            return
        if not isinstance(obj, dict):
            return
        if kind == "table":
            table = self.table(obj.get("family", "ip"), obj["name"])
            if table is not None and "flags" in obj:
                _flags(table, obj["flags"])
            return
        if kind not in ("chain", "rule", "set", "map", "element", "meter"):
            return
        table = self.table(obj.get("family", "ip"), obj.get("table", ""))
        if table is None:
            return
        if kind == "chain":
            _chain(table, obj)
        elif kind == "rule":
            if not _put_in(table.chain(obj["chain"]).raw, command, obj):
                self.unread.append("a rule that is put in beside one that is not in the text")
        else:
            kinds = obj.get("type", [])
            table.types.setdefault(obj["name"], [kinds] if isinstance(kinds, str) else list(map(str, kinds)))
            elements = obj.get("elem") or []
            table.elements.setdefault(obj["name"], []).extend(elements if isinstance(elements, list) else [elements])

    def _remove(self, command: str, kind: str, obj: Json) -> None:
        family, name = obj.get("family", "ip"), str(obj.get("name") or obj.get("table") or "")
        if kind == "ruleset":
            self.tables = {k: t for k, t in self.tables.items() if obj.get("family") not in (None, k[0])}
        elif kind == "table":
            if command == "flush" and (family, name) in self.tables:
                for chain in self.tables[(family, name)].chains.values():
                    chain.raw.clear()
            elif command != "flush":
                self.tables.pop((family, name), None)
        else:
            table = self.tables.get((family, str(obj.get("table", ""))))
            if table is None:
                return
            if kind == "chain" and command == "flush":
                table.chain(obj["name"]).raw.clear()
            elif kind == "chain":
                table.chains.pop(obj["name"], None)
            elif kind in ("set", "map") and command == "flush":
                table.elements[obj["name"]] = []
            elif kind in ("set", "map"):
                table.elements.pop(obj["name"], None)
            elif kind == "element":
                gone = obj.get("elem") or []
                kept = table.elements.get(obj["name"], [])
                table.elements[obj["name"]] = [e for e in kept if e not in gone and _key(e) not in gone]
            else:
                self.unread.append(f"{command} {kind}: which one it names is not in the text")


def _key(element: Any) -> Any:
    return element[0] if isinstance(element, list) and element else element


def _chain(table: NftTable, obj: Json) -> None:
    chain = table.chain(obj["name"])
    if "hook" not in obj:
        return
    chain.hook_name = str(obj["hook"])
    chain.hook = _DEVICE_HOOKS.get(chain.hook_name) or Hook.named(chain.hook_name)
    chain.kind = str(obj.get("type", "filter"))
    chain.priority, chain.policy = int(obj.get("prio", 0)), str(obj.get("policy") or "accept").upper()
    devices = obj.get("dev") or ()
    chain.devices = (devices,) if isinstance(devices, str) else tuple(map(str, devices))
    if chain.devices:
        _policy_as_rule(chain)


def _policy_as_rule(chain: Chain) -> None:
    """Of a chain that packets may not meet, a policy of DROP is a rule like its others, which asks whether they do."""
    if chain.policy == "DROP":
        chain.policy = "ACCEPT"
        chain.drops_rest = True


def _flags(table: NftTable, flags: Any) -> None:
    names = {flags} if isinstance(flags, str) else set(flags)
    table.dormant = table.dormant or "dormant" in names
    table.flags_unread = not table.dormant and not names <= _TABLE_FLAGS


def _put_in(rules: list[Json], command: str, rule: Json) -> bool:
    """Puts a rule where its command says (nft(8), RULES). False: beside a rule that is not there, so it is at the end."""
    beside = rule.get("index")
    handle = rule.get("handle") if command == "replace" else rule.get("position")
    if handle is not None and (command != "add" or any("handle" in present for present in rules)):
        beside = next((position for position, present in enumerate(rules) if present.get("handle") == handle), -1)
    if beside is None:
        rules.insert(0 if command == "insert" else len(rules), rule)
        return True
    if not isinstance(beside, int) or not 0 <= beside < len(rules):
        rules.append(rule)
        return False
    if command == "replace":
        rules[beside] = rule
    else:
        rules.insert(beside if command == "insert" else beside + 1, rule)
    return True
