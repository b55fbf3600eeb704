"""A node's ruleset: every dump of it parsed into tables, IPVS servers and sets, and the recognition of saved files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.evaluator.ir import Chain, Env, SetLookup, Table, address_number
from kubectl_genainet.proxy.evaluator.remember import Memory
from kubectl_genainet.proxy.evaluator.rule_ref import Hook
from kubectl_genainet.proxy.iptables.ipset import IpSet, parse_ipset
from kubectl_genainet.proxy.iptables.read import BASE_CHAINS, family_of, parse_iptables
from kubectl_genainet.proxy.ipvs.read import VirtualServer, parse_ipvs
from kubectl_genainet.proxy.nftables.read import NftTable, parse_nft_json
from kubectl_genainet.proxy.nftables.text import parse_nft_text

_HEAD = 1 << 16  # characters that tell what a text is; a ruleset may have 40 MB
_SAVE_LINE = re.compile(r"^(?:\[\d+:\d+\] )?-A \S+", re.M)
_IPVS_LINE = re.compile(r"^(?:(?:TCP|UDP|SCTP|FWM)\s+\S+|IP Virtual Server|Prot LocalAddress|-A -[tuf] )", re.M)


@dataclass(frozen=True)
class Ruleset:
    """One node's packet rules. `node_ips` None: the node's own addresses are not known; empty: it has none."""

    node: str
    tables: tuple[Table, ...] = ()
    virtual_servers: tuple[VirtualServer, ...] = ()
    ipsets: tuple[IpSet, ...] = ()
    node_ips: tuple[str, ...] | None = None
    sources: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()  # "source: why it could not be read"
    t_ns: int = 0
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)
    _envs: dict[tuple[str, ...] | None, Env] = field(default_factory=dict, repr=False, compare=False)
    _asked: dict[int, frozenset[int] | None] = field(default_factory=dict, repr=False, compare=False)
    _hooks: dict[tuple[int, Hook], tuple[Chain, ...]] = field(default_factory=dict, repr=False, compare=False)

    def chains_at(self, family: int, hook: Hook) -> tuple[Chain, ...]:
        """Base chains that a packet of the family (4 or 6) meets at a hook, in the kernel's order.

        All nat chains of a hook run inside the one nat hook (nf_nat_inet_fn), at its priority, not at their own.
        """
        found = self._hooks.get((family, hook))
        if found is None:
            chains = [
                (_effective_priority(chain), chain.priority, number, chain)
                for number, table in enumerate(self.tables)
                if table.family in (0, family)
                for chain in table.chains.values()
                if chain.hook is hook
            ]
            found = tuple(entry[3] for entry in sorted(chains, key=lambda e: e[:3]))
            self._hooks[(family, hook)] = found
        return found

    def destinations_asked(self, family: int) -> frozenset[int] | None:
        """The destinations that the rules behind NAT ask for, for packets that leave the node; None: by more than that.

        To those rules, all other destinations are the same, and so is what they do.
        """
        if family not in self._asked:
            self._asked[family] = self._ask(family)
        return self._asked[family]

    def _ask(self, family: int) -> frozenset[int] | None:
        waiting = [c for hook in (Hook.FORWARD, Hook.POST_ROUTING) for c in self.chains_at(family, hook)]
        waiting += [
            c for hook in (Hook.PRE_ROUTING, Hook.OUTPUT) for c in self.chains_at(family, hook) if c.kind != "nat"
        ]
        seen: set[int] = set()
        asked: set[int] = set()
        while waiting:
            chain = waiting.pop()
            if id(chain) in seen:
                continue
            seen.add(id(chain))
            for rule in chain.rules:
                if rule.by_destination and rule.dst is None:
                    return None
                if rule.dst is not None:
                    asked.add(rule.dst)
                waiting += [t for a in rule.actions if (t := chain.table.chains.get(a.chain)) is not None]
        return frozenset(asked)

    @cached_property
    def ipvs_by_key(self) -> Mapping[tuple[str, int, int], VirtualServer]:
        return {server.key: server for server in self.virtual_servers if server.fwmark is None}

    @cached_property
    def ipvs_by_mark(self) -> Mapping[int, VirtualServer]:
        return {server.fwmark: server for server in self.virtual_servers if server.fwmark is not None}

    @cached_property
    def env(self) -> Env:
        return self.env_for(self.node_ips)

    def env_for(self, node_ips: Sequence[str] | None) -> Env:
        """The node's addresses as the checks ask them. An IPVS address is bound on the node (kube-ipvs0)."""
        key = None if node_ips is None else tuple(node_ips)
        if key not in self._envs:
            self._envs[key] = self._make_env(key)
        return self._envs[key]

    def _make_env(self, node_ips: tuple[str, ...] | None) -> Env:
        always = {address for _, address, _ in self.ipvs_by_key}
        for table in self.tables:
            accepting = table.sets.get("nodeport-ips") if isinstance(table, NftTable) else None
            always |= {int(str(key[0])) for key in accepting.exact} if accepting else set()
        local = None if node_ips is None else frozenset(map(address_number, node_ips))
        return Env(local, frozenset(always))

    def table(self, name: str, family: int = 4) -> Table | None:
        """The table that rule references name `name` ("nat", "ip kube-proxy"); iptables-nft before legacy."""
        return next((t for t in self.tables if t.title == name and t.family in (0, family)), None)

    def chain(self, table: str, name: str, family: int = 4) -> Chain | None:
        for found in self.tables:
            if found.title == table and found.family in (0, family) and name in found.chains:
                return found.chains[name]
        return None


def _effective_priority(chain: Chain) -> int:
    if chain.kind != "nat":
        return chain.priority
    return -100 if chain.hook in (Hook.PRE_ROUTING, Hook.OUTPUT) else 100


def detect_source(text: str) -> str:
    """Which of RulesetDump's sources a saved text is. Raises InputError where it is none of them.

    Listings and transactions of nft are told apart by their content, so both come back as "nft".
    """
    head = text[:_HEAD].lstrip()
    if head.startswith("{") and '"nftables"' in head[:200]:
        return "nft"
    if re.search(r"^\*\w+$", head, re.M) or (_SAVE_LINE.search(head) and not _IPVS_LINE.search(head)):
        variant = "legacy" if "(legacy)" in head[:200] or "xtables-save" in head[:200] else "nft"
        return f"ip6tables-{variant}" if family_of(text) == 6 else f"iptables-{variant}"
    if re.search(r"^Name: \S+\nType: \S+:", head, re.M) or re.search(r"^create \S+ \w+:", head, re.M):
        return "ipset"
    if re.search(r"^\s*(?:add )?table (?:\w+ )?\S+", head, re.M):
        return "nft"
    if re.search(r"^(?:ipv[46]\s+\d+\s+)?(?:tcp|udp|sctp)\s+\d+ .*\bsrc=\S+ dst=", head, re.M):
        return "conntrack"
    if _IPVS_LINE.search(head):
        return "ipvs"
    raise InputError(
        "this is no ruleset that can be read",
        hint="Save one with `iptables-save -c`, `nft -j list ruleset`, `ipvsadm -Sn` or `ipset list` "
        "(and, for connections, `conntrack -L`).",
    )


def dump_of(text: str, *, node: str = "", name: str = "") -> RulesetDump:
    """A saved text as a dump. `name` is the file's, for the error."""
    try:
        return RulesetDump(node=node, t_ns=0, source=detect_source(text), text=text)
    except InputError as error:
        raise InputError(error.problem, source=name, hint=error.hint) from None


def parse_ruleset(dumps: Sequence[RulesetDump], *, node_ips: Iterable[str] | None = None) -> Ruleset:
    """All dumps of one node as one ruleset. A dump with an error, or a damaged one, is noted and left out."""
    sets = tuple(s for d in dumps if d.source == "ipset" for s in parse_ipset(d.text))
    lookups: dict[str, SetLookup] = {s.name: s.lookup() for s in sets}
    tables: list[Table] = []
    native: list[NftTable] = []
    servers: list[VirtualServer] = []
    errors: list[str] = []
    for dump in sorted(dumps, key=lambda d: "legacy" in d.source):
        if dump.error:
            errors.append(f"{dump.source}: {dump.error}")
        elif dump.source.startswith(("iptables", "ip6tables")):
            family = 6 if dump.source.startswith("ip6") else 4
            tables += parse_iptables(dump.text, dump.source, lookups, family)
        elif dump.source == "nft":
            is_json = dump.text.lstrip().startswith("{")
            try:
                native += parse_nft_json(dump.text) if is_json else parse_nft_text(dump.text)
            except InputError as error:
                errors.append(f"{dump.source}: {error.problem}")
        elif dump.source == "ipvs":
            servers += parse_ipvs(dump.text)
    families = {t.family for t in tables if "nft" in t.source}
    tables += [t for t in native if not (t.family in families and _is_iptables_own(t))]
    return Ruleset(
        node=dumps[0].node if dumps else "",
        tables=tuple(tables),
        virtual_servers=tuple(servers),
        ipsets=sets,
        node_ips=None if node_ips is None else tuple(node_ips),
        sources=tuple(dict.fromkeys(d.source for d in dumps if not d.error)),
        errors=tuple(errors),
        t_ns=min((d.t_ns for d in dumps), default=0),
    )


def _is_iptables_own(table: NftTable) -> bool:
    """Whether iptables-nft made the table: it is then in the iptables dump too, with its extensions readable."""
    base = BASE_CHAINS.get(table.name)
    return base is not None and all(name in base for name, chain in table.chains.items() if chain.hook is not None)
