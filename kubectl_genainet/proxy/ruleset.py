"""A node's ruleset: every dump of it parsed into tables, IPVS servers and sets, and the recognition of saved files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.dumps.repeats import (
    IptablesDump,
    distinct_iptables,
    distinct_nft,
    distinct_servers,
    distinct_sets,
)
from kubectl_genainet.proxy.dumps.whole import is_proven_whole, servers_left_out
from kubectl_genainet.proxy.evaluator.ir import Chain, Table
from kubectl_genainet.proxy.evaluator.packet.state import Env, address_number
from kubectl_genainet.proxy.evaluator.remember import Memory
from kubectl_genainet.proxy.evaluator.rule_ref import Hook
from kubectl_genainet.proxy.evaluator.sets import SetLookup
from kubectl_genainet.proxy.iptables.ipset import IpSet, lookups, parse_ipset
from kubectl_genainet.proxy.iptables.listing import LISTED
from kubectl_genainet.proxy.iptables.read import BASE_CHAINS, EXCERPT, parse_iptables
from kubectl_genainet.proxy.ipvs.read import VirtualServer, parse_ipvs
from kubectl_genainet.proxy.nftables.language.text import parse_nft_text
from kubectl_genainet.proxy.nftables.read import NftTable, parse_nft_json
from kubectl_genainet.proxy.unread import Affects, Unread


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
    unread: tuple[Unread, ...] = ()
    t_ns: int = 0
    servers_left_out: frozenset[tuple[str, int, int]] = frozenset()  # that sets of kube-proxy name, by key
    lists_all_servers: bool = True  # whether a virtual server that is not listed is known not to be there
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)
    _envs: dict[tuple[str, ...] | None, Env] = field(default_factory=dict, repr=False, compare=False)
    _asked: dict[int, frozenset[int] | None] = field(default_factory=dict, repr=False, compare=False)
    _hooks: dict[tuple[int, Hook, bool], tuple[Chain, ...]] = field(default_factory=dict, repr=False, compare=False)
    _ties: dict[int, bool] = field(default_factory=dict, repr=False, compare=False)
    known_enforcers: dict[str, frozenset[str]] = field(
        default_factory=dict, repr=False, compare=False
    )  # of enforcers_in

    def chains_at(self, family: int, hook: Hook, *, reverse_ties: bool = False) -> tuple[Chain, ...]:
        """Base chains that a packet of the family (4 or 6) meets at a hook, in the kernel's order.

        All nat chains of a hook run inside the one nat hook (nf_nat_inet_fn), at its priority, not at their own. Of
        chains of one priority the one registered last runs first (nf_hook_entries_grow): nft lists tables and chains in
        the order of their making. Legacy tables stand in no such order: they come last, or first with `reverse_ties`.
        """
        key = (family, hook, reverse_ties)
        chains_found = self._hooks.get(key)
        if chains_found is None:
            chains = [
                (*_order(chain), _is_legacy(chain) is not reverse_ties, -table.number, -number, chain)
                for table in self.tables
                if table.family in (0, family)
                for number, chain in enumerate(table.chains.values())
                if chain.hook is hook
            ]
            chains_found = tuple(entry[-1] for entry in sorted(chains, key=lambda e: e[:-1]))
            self._hooks[key] = chains_found
        return chains_found

    def translates(self, family: int) -> bool:
        """Whether any chain translates: NAT then decides about every connection of the family (nf_nat_register_fn)."""
        return any(c.kind == "nat" for hook in Hook for c in self.chains_at(family, hook))

    def ties(self, family: int) -> bool:
        """Whether legacy chains and others with rules share a priority: their order is then in no dump."""
        if family not in self._ties:
            seen: dict[tuple[object, ...], set[bool]] = {}
            for hook in Hook:
                for chain in self.chains_at(family, hook):
                    if chain.raw or chain.policy != "ACCEPT":
                        seen.setdefault((hook, *_order(chain)), set()).add(_is_legacy(chain))
            self._ties[family] = any(len(kinds) > 1 for kinds in seen.values())
        return self._ties[family]

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
        always = {address for _, address, _ in (*self.ipvs_by_key, *self.servers_left_out)}
        for table in self.tables:
            accepting = table.declared("nodeport-ips") if isinstance(table, NftTable) else None
            always |= {key[0] for key in accepting.exact if isinstance(key[0], int)} if accepting else set()
        local = None if node_ips is None else frozenset(map(address_number, node_ips))
        return Env(local, frozenset(always))

    def table(self, name: str, family: int = 4) -> Table | None:
        """The table that rule references name `name` ("nat", "ip kube-proxy"); iptables-nft before legacy."""
        return next((t for t in self.tables if t.title == name and t.family in (0, family)), None)

    def chain(self, table: str, name: str, family: int = 4) -> Chain | None:
        for candidate in self.tables:
            if candidate.title == table and candidate.family in (0, family) and name in candidate.chains:
                return candidate.chains[name]
        return None


def effective_priority(chain: Chain) -> int:
    if chain.kind != "nat":
        return chain.priority
    return -100 if chain.hook in (Hook.PRE_ROUTING, Hook.OUTPUT) else 100


def _order(chain: Chain) -> tuple[int, int]:
    return effective_priority(chain), chain.priority


def _is_legacy(chain: Chain) -> bool:
    return "legacy" in chain.table.source


@dataclass(slots=True)
class _Read:
    """What the dumps of a node hold, as they were read."""

    iptables: list[IptablesDump] = field(default_factory=list)
    native: list[NftTable] = field(default_factory=list)
    servers: list[VirtualServer] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self, dump: RulesetDump, sets: dict[str, SetLookup]) -> None:
        if dump.error:
            self.errors.append(f"{dump.source}: {dump.error}")
        elif dump.source.startswith(("iptables", "ip6tables")):
            family = 6 if dump.source.startswith("ip6") else 4
            of_dump, parts = parse_iptables(dump.text, dump.source, sets, family)
            is_listed = dump.text.startswith(LISTED)
            self.iptables.append(IptablesDump(of_dump, [_part(dump, part) for part in parts], is_listed))
        elif dump.source == "nft":
            is_json = dump.text.lstrip().startswith("{")
            try:
                ruleset, parts = parse_nft_json(dump.text) if is_json else parse_nft_text(dump.text)
                self.native += ruleset
                self.unread += [Unread(dump.source, part) for part in parts]
            except InputError as error:
                self.errors.append(f"{dump.source}: {error.problem}")
        elif dump.source == "ipvs":
            found, gaps = parse_ipvs(dump.text)
            self.servers += found
            self.unread += gaps


def parse_ruleset(dumps: Sequence[RulesetDump], *, node_ips: Iterable[str] | None = None) -> Ruleset:
    """All dumps of one node as one ruleset. A dump with an error, or a damaged one, is noted and left out."""
    sets, unread = distinct_sets(s for d in dumps if d.source == "ipset" for s in parse_ipset(d.text))
    set_lookups = lookups(sets)
    read = _Read()
    for dump in sorted(dumps, key=lambda d: "legacy" in d.source):
        read.take(dump, set_lookups)
    unread += read.unread
    saved_tables, of_iptables = distinct_iptables(read.iptables)
    native, of_nft = distinct_nft(read.native)
    servers, of_ipvs = distinct_servers(read.servers)
    tables: list[Table] = [*saved_tables]
    is_saved = not any(dump.t_ns for dump in dumps)  # an agent knows whether ipvsadm came to its end
    left_out = servers_left_out(sets, servers) if is_saved else frozenset()
    if left_out:
        what = f"an excerpt, or cut short: it lacks {len(left_out)} virtual servers whose addresses a set of kube-proxy has"
        of_ipvs.append(Unread("ipvs", what, scope=Affects.NOTHING))
    unread += [*of_iptables, *of_nft, *of_ipvs]
    unread += [Unread("ipset", s.unread, s.name, Affects.SET) for s in sets if s.unread]
    if dumps and all(d.source.startswith(("ipset", "conntrack")) for d in dumps):
        unread.append(Unread("dumps", "no rules are among them; save `iptables-save -c` or `nft -j list ruleset`"))
    own = [t for t in native if _is_iptables_own(t)]
    saved = {(t.family, t.name) for t in tables if "nft" in t.source}
    for table in tables:
        listed = next((t for t in own if (t.family, t.name) == (table.family, table.name)), None)
        table.number = listed.number if listed is not None and "nft" in table.source else table.number
    unread += [_lossy(t) for t in own if (t.family, t.name) not in saved and _leaves_out(t)]
    tables += [t for t in native if not ((t.family, t.name) in saved and t in own)]
    return Ruleset(
        node=dumps[0].node if dumps else "",
        tables=tuple(tables),
        virtual_servers=tuple(servers),
        ipsets=sets,
        node_ips=None if node_ips is None else tuple(node_ips),
        sources=tuple(dict.fromkeys(d.source for d in dumps if not d.error)),
        errors=tuple(read.errors),
        unread=tuple(unread),
        t_ns=min((d.t_ns for d in dumps), default=0),
        lists_all_servers=not (is_saved and servers) or (is_proven_whole(sets) and not left_out),
        servers_left_out=left_out,
    )


def _part(dump: RulesetDump, what: str) -> Unread:
    return Unread(dump.source, what, scope=Affects.EXCERPT if what == EXCERPT else Affects.EVERYTHING)


def _is_iptables_own(table: NftTable) -> bool:
    """Whether iptables-nft made the table: it is then in the iptables dump too, with its extensions readable."""
    base = BASE_CHAINS.get(table.name)
    return base is not None and all(name in base for name, chain in table.chains.items() if chain.hook is not None)


def _leaves_out(table: NftTable) -> bool:
    """Whether the listing leaves out what it can't print: extensions of iptables."""
    return any(
        isinstance(entry, dict) and "xt" in entry
        for chain in table.chains.values()
        for rule in chain.raw
        for entry in rule.get("expr") or ()
    )


def _lossy(table: NftTable) -> Unread:
    what = (
        "these are rules of iptables-nft, of which nft leaves out what it can't print (comments, random matches and "
        "others); save them with `iptables-save -c`"
    )
    return Unread("nft", what, table.title, Affects.RULE)
