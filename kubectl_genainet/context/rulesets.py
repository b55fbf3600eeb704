"""Each namespace's packet rules, parsed when they are first asked for."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.node import NetnsRules, RulesetDump
from kubectl_genainet.proxy import Ruleset, parse_ruleset

_HOST = 0


class Rulesets:
    """Collects dumps; a newer one of a source replaces the older."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._dumps: dict[tuple[str, int], dict[str, RulesetDump]] = defaultdict(dict)
        self._parsed: dict[tuple[str, int], tuple[Ruleset | None, str]] = {}

    def learn(self, dumps: RulesetDump | NetnsRules) -> None:
        key = (dumps.node, dumps.netns if isinstance(dumps, NetnsRules) else _HOST)
        for dump in dumps.dumps if isinstance(dumps, NetnsRules) else (dumps,):
            self._dumps[key][dump.source] = dump
        self._parsed.pop(key, None)

    def of(self, node: str, netns: int = _HOST) -> tuple[Ruleset | None, str]:
        """The rules of a namespace of the node as last read, or why there are none. Without one, the host's."""
        space = self._identity.namespaces.get((node, netns))
        key = (node, netns if space is not None and not space.host else _HOST)
        if key not in self._parsed:
            self._parsed[key] = self._parse(key)
        return self._parsed[key]

    def known(self, node: str, netns: int) -> bool:
        """Whether the rules of the namespace have been read. What is not known to be a pod's is taken for the host's."""
        space = self._identity.namespaces.get((node, netns))
        return bool(self._dumps[node, netns if space is not None and not space.host else _HOST])

    def _parse(self, key: tuple[str, int]) -> tuple[Ruleset | None, str]:
        node, netns = key
        rules = [d for d in self._dumps[key].values() if not d.source.startswith("conntrack")]
        dumps = [d for d in rules if not d.error]
        errors = "; ".join(f"{d.source}: {d.error}" for d in rules if d.error)
        space = self._identity.namespaces.get(key) if netns else self._identity.host_of(node)
        try:
            return (parse_ruleset(dumps, node_ips=space.addresses if space else None) if dumps else None), errors
        except GenainetError as error:
            return None, error.message
