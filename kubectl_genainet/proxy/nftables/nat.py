"""dnat, redirect, snat and masquerade of nft: to a constant, a range, or what a map gives for any key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kubectl_genainet.model.packet import split_endpoint
from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.ir import Act, Action
from kubectl_genainet.proxy.evaluator.packet.state import Condition
from kubectl_genainet.proxy.nftables import values
from kubectl_genainet.proxy.nftables.maps import picked
from kubectl_genainet.proxy.nftables.values import Json, Unsupported

if TYPE_CHECKING:
    from kubectl_genainet.proxy.nftables.read import NftTable


def dnat(table: NftTable, kind: str, body: Json, label: str) -> tuple[Action, tuple[Condition, ...]]:
    """The action of a translation of the destination, and the family that it is for."""
    flags = body.get("flags") or ()
    flags = {flags} if isinstance(flags, str) else set(flags)
    options = Action(Act.DNAT, persistent="persistent" in flags, random_port="random" in flags)
    port = body.get("port")
    if kind == "redirect" and isinstance(port, dict) and "map" in port:
        chosen = port["map"]
        return picked(table, chosen["key"], chosen["data"], lambda v: _redirect(v, options), label)
    if kind == "redirect":
        return _redirect(port, options), ()
    address = body.get("addr")
    needs = _family(body, address)
    if isinstance(address, dict) and "map" in address:
        chosen = address["map"]
        action, more = picked(table, chosen["key"], chosen["data"], lambda v: _to(v, port, options), label)
        return action, (*needs, *more)
    if isinstance(port, dict) and "map" in port:
        chosen = port["map"]
        action, more = picked(table, chosen["key"], chosen["data"], lambda v: _to(address, v, options), label)
        return action, (*needs, *more)
    return _to(address, port, options), needs


def _redirect(port: Any, options: Action) -> Action:
    low, high = _bounds(port, values.port) if port is not None else (None, None)
    return replace(options, address=-1, port=low, last_port=high, detail="REDIRECT")


def _family(body: Json, address: Any) -> tuple[Condition, ...]:
    family = body.get("family")
    if family in ("ip", "ip6"):
        return (conditions.family_is(4 if family == "ip" else 6),)
    if isinstance(address, str):
        return (conditions.family_is(6 if ":" in address else 4),)
    return ()


def _to(address: Any, port: Any, options: Action) -> Action:
    """To an address (or a range of them) and a port, or to both as one value "10.0.0.1 . 80"."""
    if isinstance(address, dict) and "concat" in address:
        address, port = address["concat"]
    if isinstance(address, dict) and "prefix" in address:  # net to net: the host's bits stay
        first, last = values.plain(address)
        return replace(options, keep=first ^ last, flip=first, port=None, detail="NETMAP")
    low, high = _bounds(address, values.plain) if address is not None else (None, None)
    first, last = _bounds(port, values.port) if port is not None else (None, None)
    return replace(options, address=low, last_address=high, port=first, last_port=last)


def _bounds(value: Any, convert: values.Convert) -> tuple[int | None, int | None]:
    low, high = convert(value)
    return low, None if high == low else high


def tproxy(body: Any) -> Action:
    """To a socket of the node: what listens on the port, or has the address too. Of a map Unsupported is raised."""
    if isinstance(body, str):  # "ADDRESS:PORT", ":PORT" or "ADDRESS"
        address, port = split_endpoint(body) if ":" in body else (body, "")
        body = {"addr": address.strip("[]") or None, "port": port or None}
    address, port = body.get("addr"), body.get("port")
    return Action(
        Act.TPROXY,
        address=None if address is None else values.single(address, values.plain),
        port=None if port is None else values.single(port, values.port),
        detail="nft",
    )


def snat(table: NftTable, body: Json, label: str) -> tuple[Action, tuple[Condition, ...]]:
    """The source is translated. A map without the key translates nothing."""
    address = body.get("addr")
    needs = _family(body, address)
    for value in (address, body.get("port")):
        if isinstance(value, dict) and "map" in value:
            chosen = value["map"]
            to = _source if value is address else lambda v: Action(Act.SNAT)
            action, more = picked(table, chosen["key"], chosen["data"], to, label)
            return action, (*needs, *more)
    return _source(address), needs


def _source(address: Any) -> Action:
    """The new source, where it is one address; of a range, or of the device that it leaves by, it is not known."""
    if isinstance(address, dict) and "concat" in address:
        address = address["concat"][0]
    try:
        return Action(Act.SNAT, address=values.single(address, values.plain))
    except Unsupported:
        return Action(Act.SNAT)
