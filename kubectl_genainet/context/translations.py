"""Where the nodes' rules send a target's packets, beside its endpoints."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from kubectl_genainet.context.context import Context
from kubectl_genainet.context.scope import Scope
from kubectl_genainet.context.targets import Resolved
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, Ruleset, evaluate
from kubectl_genainet.proxy.drift.ways import OUTSIDE
from kubectl_genainet.wire import FilterEntry

MOST_ASKED = 1000  # addresses with their ports: those of a whole cluster would take seconds a node

Followed = TypeVar("Followed", Resolved, Scope)


class Translations:
    """A node whose rules are old sends the target's packets to what is no endpoint any more. Another node sees nothing of them
    but that address: it is followed there as well."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._filters: dict[FilterEntry, None] = {}

    def learn(self, dump: RulesetDump, filters: Iterable[FilterEntry]) -> None:
        """Takes in rules that the context has learnt; `filters` are the target's own."""
        own = [entry for entry in filters if entry.port and entry.protocol]
        asked = list(islice((entry for entry in own if entry.ip in dump.text), MOST_ASKED))
        ruleset, _ = self._context.rulesets.of(dump.node) if asked else (None, "")
        if ruleset is not None:
            ends = (end for entry in asked for end in self._sent_to(ruleset, entry))
            self._filters |= dict.fromkeys(end for end in ends if end not in own)

    def _sent_to(self, ruleset: Ruleset, entry: FilterEntry) -> Iterator[FilterEntry]:
        with contextlib.suppress(ValueError):  # what an object calls an address, or a protocol, may be none
            protocol = Protocol(entry.protocol)
            for client in self._clients(6 if ":" in entry.ip else 4):
                packet = Packet(src=client, dst=entry.ip, dport=entry.port, protocol=protocol)
                for way in evaluate(ruleset, packet).outcomes:  # all that are possible, where it is not known which are
                    if way.backend is not None:
                        yield FilterEntry(way.backend.ip, way.backend.port or entry.port, entry.protocol)

    def _clients(self, family: int) -> Iterator[str]:
        """Addresses from which connections may come, of each kind of client that rules tell apart."""
        pods = (ip for pod in self._context.identity.snapshot.pods if not pod.spec.host_network for ip in pod.ips)
        yield from islice((ip for ip in pods if (":" in ip) == (family == 6)), 1)
        yield OUTSIDE[family]

    def added_to(self, followed: Followed) -> Followed:
        """What a command follows, with these ends among its own."""
        ends = {(entry.ip, entry.port) for entry in self._filters}
        filters = tuple(dict.fromkeys((*followed.filters, *self._filters)))
        return dataclasses.replace(followed, filters=filters, servers=followed.servers | ends)
