"""Each node's packet rules, parsed when they are first asked for."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy import Ruleset, parse_ruleset


class Rulesets:
    """Collects dumps; a newer one of a source replaces the older."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._dumps: dict[str, dict[str, RulesetDump]] = defaultdict(dict)
        self._parsed: dict[str, tuple[Ruleset | None, str]] = {}

    def learn(self, dump: RulesetDump) -> None:
        self._dumps[dump.node][dump.source] = dump
        self._parsed.pop(dump.node, None)

    def of(self, node: str) -> tuple[Ruleset | None, str]:
        """The node's rules as last read, or why there are none."""
        if node not in self._parsed:
            rules = [d for d in self._dumps[node].values() if not d.source.startswith("conntrack")]
            dumps = [d for d in rules if not d.error]
            errors = "; ".join(f"{d.source}: {d.error}" for d in rules if d.error)
            host = self._identity.host_of(node)
            try:
                parsed = parse_ruleset(dumps, node_ips=host.addresses if host else None) if dumps else None
                self._parsed[node] = (parsed, errors)
            except GenainetError as error:
                self._parsed[node] = (None, error.message)
        return self._parsed[node]
