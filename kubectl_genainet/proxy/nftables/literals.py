"""Literals, ranges, prefixes and set elements, from the JSON of nft."""

from __future__ import annotations

import ipaddress
from typing import Any

from kubectl_genainet.proxy.evaluator.checks import PROTOCOLS
from kubectl_genainet.proxy.evaluator.ir import SetLookup
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.nftables.show import show_expressions

Json = dict[str, Any]

_SERVICES = {"domain": 53, "http": 80, "https": 443, "ssh": 22}  # only where a listing was made without -n


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
