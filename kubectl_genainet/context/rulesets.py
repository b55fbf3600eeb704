"""Each namespace's packet rules, parsed when they are first asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.node import NetnsRules, RulesetDump
from kubectl_genainet.proxy import Ruleset, parse_ruleset

_HOST = 0


MAX_EARLIER = 8  # versions of a namespace's rules that are kept beside the newest


class Rulesets:
    """Collects dumps; a newer one of a source replaces the older, which is kept as an earlier version."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._dumps: dict[tuple[str, int], dict[str, RulesetDump]] = defaultdict(dict)
        self._read_ns: dict[tuple[str, int], int] = {}
        self._parsed: dict[tuple[str, int], tuple[Ruleset | None, str]] = {}
        self._earlier: dict[tuple[str, int], list[dict[str, RulesetDump]]] = defaultdict(list)

    def learn(self, dumps: RulesetDump | NetnsRules) -> None:
        key = self._own_key(dumps.node, dumps.netns if isinstance(dumps, NetnsRules) else _HOST)
        parts = dumps.dumps if isinstance(dumps, NetnsRules) else (dumps,)
        if isinstance(dumps, NetnsRules):
            self._read_ns[key] = dumps.t_ns
            if not parts:
                return
        if any(d.source in self._dumps[key] and self._dumps[key][d.source].text != d.text for d in parts):
            self._earlier[key] = [dict(self._dumps[key]), *self._earlier[key][: MAX_EARLIER - 1]]
        for dump in parts:
            self._dumps[key][dump.source] = dump
        self._parsed.pop(key, None)

    def of(self, node: str, netns: int = _HOST) -> tuple[Ruleset | None, str]:
        """The rules of a namespace of the node as last read, or why there are none. Without one, the host's."""
        key = self._key(node, netns)
        if key not in self._parsed:
            self._parsed[key] = self._parse(key)
        return self._parsed[key]

    def earlier(self, node: str, netns: int = _HOST) -> tuple[Ruleset, ...]:
        """What the namespace's rules were before, the latest first: a rule may be gone when its drop is explained."""
        key = self._key(node, netns)
        parsed = (self._parse_dumps(key, dumps)[0] for dumps in self._earlier[key])
        return tuple(ruleset for ruleset in parsed if ruleset is not None)

    def _own_key(self, node: str, netns: int) -> tuple[str, int]:
        host = self._identity.host_of(node)
        return (node, _HOST if host is not None and netns == host.inode else netns)

    def _key(self, node: str, netns: int) -> tuple[str, int]:
        """Of a node that has not reported its namespaces, one whose rules are not known is taken for the host's."""
        key = self._own_key(node, netns)
        return key if key in self._dumps or self._identity.host_of(node) is not None else (node, _HOST)

    def known(self, node: str, netns: int) -> bool:
        """Whether the rules of the namespace have been read, be it that there are none."""
        key = self._key(node, netns)
        return key in self._read_ns or bool(self._dumps[key])

    def read_since(self, node: str, netns: int, t_ns: int) -> bool:
        """Whether the namespace's rules were read after the moment."""
        return self._read_ns.get(self._key(node, netns), 0) >= t_ns

    def _parse(self, key: tuple[str, int]) -> tuple[Ruleset | None, str]:
        return self._parse_dumps(key, self._dumps[key])

    def _parse_dumps(self, key: tuple[str, int], known: Mapping[str, RulesetDump]) -> tuple[Ruleset | None, str]:
        node, netns = key
        rules = [d for d in known.values() if not d.source.startswith("conntrack")]
        dumps = [d for d in rules if not d.error]
        errors = "; ".join(f"{d.source}: {d.error}" for d in rules if d.error)
        space = self._identity.namespaces.get(key) if netns else self._identity.host_of(node)
        try:
            return (parse_ruleset(dumps, node_ips=space.addresses if space else None) if dumps else None), errors
        except GenainetError as error:
            return None, error.message
