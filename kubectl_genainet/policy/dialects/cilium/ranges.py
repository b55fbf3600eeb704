"""Ranges of ports that begin at a port by its name, for ingress.

Cilium joins the rules for one port by its name into one filter, which keeps the endPort that it reads first, be it none: where
rules give a name several, which of them counts is not known. Source: Cilium, pkg/policy/l4.go; compared with its engine.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.dialects.cilium.checks import port_number
from kubectl_genainet.policy.dialects.cilium.shapes import RawCiliumPolicy
from kubectl_genainet.policy.rules import NamedPortTerm


class Ranges:
    """The values of endPort that the rules of a snapshot give to each port by its name."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        ends: dict[str, set[int]] = defaultdict(set)
        for name, end in (*_of_cilium(snapshot), *_of_network_policies(snapshot)):
            ends[name].add(end)
        self._rivals = {name: max(values) for name, values in ends.items() if len(values) > 1}

    def __bool__(self) -> bool:
        return bool(self._rivals)

    def widest(self, term: NamedPortTerm) -> NamedPortTerm:
        """A term with the longest of the ranges that it may stand for."""
        return msgspec.structs.replace(term, last=self._rivals.get(term.name, term.last))

    def note(self, name: str) -> str:
        """Why it is not known what a name stands for; "" where it is known."""
        if name.lower() not in self._rivals:
            return ""
        return f"rules give port {name} several values of endPort, and which of them counts is not known"


def _of_cilium(snapshot: ClusterSnapshot) -> Iterator[tuple[str, int]]:
    for kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
        for obj in snapshot.of(kind, "cilium.io"):
            with contextlib.suppress(InputError):  # it is refused, and not in force
                raw = obj.decode(RawCiliumPolicy)
                for spec in (*([raw.spec] if raw.spec else []), *(raw.specs or ())):
                    for rule in (*spec.ingress, *spec.ingress_deny):
                        for port in (port for ports in rule.to_ports or () for port in ports.ports):
                            if port_number(port.port) is None:
                                yield port.port.lower(), port.end_port


def _of_network_policies(snapshot: ClusterSnapshot) -> Iterator[tuple[str, int]]:
    for obj in snapshot.of("NetworkPolicy", "networking.k8s.io"):
        for rule in _mappings(_mapping(obj.raw.get("spec")).get("ingress")):
            for port in _mappings(rule.get("ports")):
                if isinstance(port.get("port"), str):
                    yield port["port"], 0


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []
