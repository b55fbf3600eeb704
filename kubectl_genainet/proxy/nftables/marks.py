"""Statements of nft that write a field: the packet's mark, the connection's, the DSCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubectl_genainet.proxy.evaluator.ir import CONTINUE_ACTION, Act, Action
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, Condition
from kubectl_genainet.proxy.nftables import values
from kubectl_genainet.proxy.nftables.maps import picked, split_evenly
from kubectl_genainet.proxy.nftables.values import ZONE_SET, Json, Unsupported

if TYPE_CHECKING:
    from kubectl_genainet.proxy.nftables.read import NftTable

_REWRITES = {"saddr", "daddr", "sport", "dport", "protocol", "nexthdr", "flags"}


def mark_action(table: NftTable, body: Json, label: str) -> tuple[Action, tuple[Condition, ...]]:
    """The action of `KEY set VALUE`, and what it needs. What changes no packet's way goes on."""
    key, value = body["key"], body["value"]
    payload = key.get("payload")
    if isinstance(payload, dict):
        match payload.get("field"):
            case "dscp":
                return Action(Act.TOS, keep=0x03, flip=values.single(value, values.dscp) << 2), ()
            case "ecn":
                return Action(Act.TOS, keep=0xFC, flip=values.single(value, values.ecn)), ()
            case "ttl" | "hoplimit":
                return Action(Act.TTL, detail="set", flip=_number(value)), ()
        if payload.get("field") in _REWRITES or "field" not in payload:
            return Action(Act.UNKNOWN, detail=label), ()
        return CONTINUE_ACTION, ()
    target = {("meta", "mark"): "mark", ("ct", "mark"): "connmark"}.get(_name(key))
    if _name(key) == ("meta", "pkttype"):  # the kernel forwards no packet that is for others or for all
        return Action(Act.UNKNOWN, detail=label), ()
    if _name(key) == ("ct", "zone"):
        return Action(Act.ADD, detail=ZONE_SET[0]), ()
    if target is None:
        return CONTINUE_ACTION, ()
    if isinstance(value, dict) and "map" in value:
        chosen = value["map"]
        return picked(table, chosen["key"], chosen["data"], lambda v: _write(target, "", 0, _number(v)), label)
    if isinstance(value, dict) and (split := split_evenly(value, lambda v: _write(target, "", 0, v))) is not None:
        return split, ()
    try:
        base, keep, flip = _function(value)
    except Unsupported:  # the mark is then not known, whatever it was
        return Action(Act.MARK if target == "mark" else Act.CONNMARK, source="unknown", detail="nft"), ()
    return _write(target, base, keep, flip), ()


def _name(key: Json) -> tuple[str, str]:
    (kind, body), *_ = key.items()
    return kind, body.get("key", "") if isinstance(body, dict) else ""


def _number(value: Any) -> int:
    return values.single(value, values.plain)


def _write(target: str, base: str, keep: int, flip: int) -> Action:
    kind = Act.MARK if target == "mark" else Act.CONNMARK
    if base in ("", target):
        return Action(kind, keep=keep if base else 0, flip=flip, detail="nft")
    return Action(kind, keep=0, flip=flip, source=base, source_mask=keep, detail="nft")


def _function(value: Any) -> tuple[str, int, int]:
    """(base, keep, flip) of an expression over a mark: (base & keep) ^ flip; base "" for a constant."""
    if not isinstance(value, dict):
        return "", 0, _number(value)
    (op, body), *_ = value.items()
    if op in ("meta", "ct") and body["key"] == "mark":
        return ("mark" if op == "meta" else "connmark"), ALL_BITS, 0
    if op not in ("&", "|", "^"):
        raise Unsupported(op)
    base, keep, flip = _function(body[0])
    for part in body[1:]:
        number = _number(part)
        if op == "&":
            keep, flip = keep & number, flip & number
        elif op == "^":
            flip ^= number
        else:
            keep, flip = keep & ~number, (flip & ~number) | number
    return base, keep, flip
