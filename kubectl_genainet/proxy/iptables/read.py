"""iptables-save text: tables, chains and rules as text, compiled rule by rule when a packet meets them.

Reads the output of iptables-save and ip6tables-save (legacy and nf_tables, with and without counters), the input of
iptables-restore, and excerpts without table headers.
"""

from __future__ import annotations

import re

from kubectl_genainet.model.units import whole_number
from kubectl_genainet.proxy.evaluator.ir import Chain, Rule, Table
from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef
from kubectl_genainet.proxy.evaluator.sets import SetLookup
from kubectl_genainet.proxy.iptables.reader import split_words
from kubectl_genainet.proxy.iptables.rule import Compiler
from kubectl_genainet.proxy.names import ENDPOINT_CHAINS, SERVICE_CHAINS

# Base chains: table -> chain -> (hook, priority). Source: linux/netfilter_ipv4.h, enum nf_ip_hook_priorities.
_RAW, _MANGLE, _DNAT, _FILTER, _SECURITY, _SNAT = -300, -150, -100, 0, 50, 100
BASE_CHAINS = {
    "raw": {"PREROUTING": _RAW, "OUTPUT": _RAW},
    "mangle": dict.fromkeys(("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"), _MANGLE),
    "nat": {"PREROUTING": _DNAT, "OUTPUT": _DNAT, "INPUT": _SNAT, "POSTROUTING": _SNAT},
    "filter": dict.fromkeys(("INPUT", "FORWARD", "OUTPUT"), _FILTER),
    "security": dict.fromkeys(("INPUT", "FORWARD", "OUTPUT"), _SECURITY),
}
_ADDRESS = re.compile(r" (?:-[sd]|--to-destination) \[?([0-9A-Fa-f:.]+[0-9A-Fa-f])")
_JUMP = re.compile(r" -[jg] (\S+)")
_NAT_ONLY = re.compile(
    rf"^(?:\[\d+:\d+\] )?-A (?:PREROUTING|POSTROUTING|KUBE-POSTROUTING|(?:{'|'.join((*SERVICE_CHAINS, ENDPOINT_CHAINS))})\S+) "
    r"| -j (?:DNAT|SNAT|MASQUERADE|REDIRECT|NETMAP)\b",
    re.M,
)


_HEADLESS = "rules stand outside of a table: where they belong, and what stands before them, is not in the text"
EXCERPT = "an excerpt without the line of its table (*nat) is all that is known of the rules; save `iptables-save -c`"
_TO_DESTINATION = re.compile(r" -j (?:DNAT|REDIRECT|NETMAP)\b")
_FILTER_ONLY = re.compile(r" -j (?:REJECT|DROP)\b|^(?:\[\d+:\d+\] )?-A (?:FORWARD|KUBE-FORWARD) ", re.M)


class IptablesTable(Table):
    """One table of one family. `sets` are the node's ipsets by name."""

    def __init__(self, name: str, family: int, source: str, sets: dict[str, SetLookup]) -> None:
        super().__init__(name, family, source)
        self.sets = sets
        self.is_excerpt = False  # rules without the line of their table, which is guessed

    def chain(self, name: str) -> Chain:
        chain = self.chains.get(name)
        if chain is None:
            chain = self.chains[name] = Chain(self, name)
            priority = BASE_CHAINS.get(self.name, {}).get(name)
            if priority is not None:
                chain.hook, chain.priority = Hook.named(name), priority
                chain.kind = "nat" if self.name == "nat" else "filter"
        return chain

    def compile(self, chain: Chain) -> list[Rule]:
        compiler = Compiler(self.family, self.chains, self.sets)
        return [compiler.rule(chain, number, raw) for number, raw in enumerate(chain.raw, 1)]

    def describe(self, rule: Rule) -> RuleRef:
        text, packets, size = split_counters(rule.raw)
        return RuleRef(self.name, rule.chain.name, rule.index, text, comment_of(text), packets, size)


def split_counters(line: str) -> tuple[str, int | None, int | None]:
    """A rule line without its leading "[packets:bytes] ", and the counters."""
    if not line.startswith("["):
        return line, None, None
    counters, _, text = line.partition("] ")
    packets, _, size = counters[1:].partition(":")
    try:
        return text, int(packets), int(size)
    except ValueError:
        return text, None, None


def comment_of(text: str) -> str:
    """The rule's comments, joined by "; " where it has several."""
    if "--comment" not in text:
        return ""
    tokens = split_words(text)
    return "; ".join(tokens[i + 1] for i, word in enumerate(tokens[:-1]) if word == "--comment")


def family_of(text: str) -> int | None:
    """6 for the text of ip6tables-save, else 4: its first line, or its first address, tells; None where there is none."""
    if re.search(r"\bip6tables(-nft|-legacy)?-save\b", text[:200]):
        return 6
    match = _ADDRESS.search(text)
    if match is None:
        return None
    return 6 if match.group(1).count(":") > 1 else 4  # one colon: an IPv4 address and a port


def parse_iptables(
    text: str, source: str, sets: dict[str, SetLookup], family: int | None = None
) -> tuple[list[IptablesTable], list[str]]:
    """The tables of an iptables-save text, and what of it is missing. `source` is carried along ("iptables-nft", …).

    An excerpt without "*table" lines is taken for the nat table where its chains or its targets are of that, else
    for the filter table; see `_hook_roots` for where it is entered. The policies of its chains are not known.
    """
    reading = _Reading(text, source, sets, family or family_of(text) or 4)
    chains = reading.chains
    for line in text.splitlines():
        if not line.startswith(("-A ", "[")):
            reading.other_line(line)
            chains = reading.chains
            continue
        start = 3 if line[0] == "-" else line.find("] -A ") + 5
        end = line.find(" ", start)
        name = line[start:end] if end > 0 else line[start:]
        chain = chains.get(name)
        if chain is None:
            if start == 4:  # "[...]"
                reading.skip(line)
                continue
            chain = reading.new_chain(name)
            chains = reading.chains
        chain.raw.append(line)
    reading.end()
    return list(reading.tables.values()), reading.missing


class _Reading:
    """Where the reader of a text is: in a table, in an excerpt without one, or between two. `chains` are of that table."""

    def __init__(self, text: str, source: str, sets: dict[str, SetLookup], family: int) -> None:
        self.tables: dict[str, IptablesTable] = {}
        self.missing: list[str] = []
        self.chains: dict[str, Chain] = {}
        self._text, self._source, self._sets, self._family = text, source, sets, family
        self._table: IptablesTable | None = None
        self._excerpt: IptablesTable | None = None
        self._has_head = self._is_open = False

    def skip(self, line: str) -> None:
        self.missing.append(f"a line that is not read: {line.strip()[:80]}")

    def new_chain(self, name: str) -> Chain:
        """A chain that a rule is the first to name. Outside of a table the rule begins an excerpt."""
        if self._table is None:
            self._has_head |= bool(self.tables)
            self._excerpt = self._enter("nat" if _NAT_ONLY.search(self._text) else "filter", is_open=False)
        assert self._table is not None
        chain = self._table.chain(name)
        if self._table is self._excerpt and chain.hook is not None and self._table.name != "nat":  # nobody drops there
            chain.policy = ""
        return chain

    def other_line(self, line: str) -> None:
        """What is no rule that is appended."""
        if line.startswith(":") and self._table is not None:
            name, _, policy_and_counters = line[1:].partition(" ")
            policy = policy_and_counters.partition(" ")[0]
            chain = self._table.chain(name)
            chain.policy = policy if policy not in ("-", "") else "ACCEPT" if chain.hook is None else ""
        elif line.startswith("*"):
            self._check_end()
            self._has_head |= self._excerpt is not None
            self._enter(line[1:].strip(), is_open=True)
        elif line.startswith("COMMIT"):
            self._has_head |= not self._is_open
            self._is_open, self._table, self.chains = False, None, {}
        elif line.startswith("# Generated by ") and " *" in line:
            self.missing.append("its lines are not apart")
        elif line.strip() and not line.startswith("#") and not self._is_restored(line):
            self.skip(line)

    def _is_restored(self, line: str) -> bool:
        """Takes up what only the input of iptables-restore has: -I, -N and -P. False: it is none of these."""
        table = self._table
        if table is None:
            return False
        if line.startswith("-I "):
            return table is not self._excerpt and _insert(table, line)
        tokens = line.split()
        if not line.startswith(("-N ", "-P ")) or len(tokens) < 2:
            return False
        chain = table.chain(tokens[1])
        if line[1] == "P":
            chain.policy = tokens[2] if len(tokens) > 2 else ""
        return True

    def end(self) -> None:
        self._check_end()
        excerpt = self._excerpt
        if excerpt is not None:
            is_mixed = excerpt.name == "nat" and _FILTER_ONLY.search(self._text) is not None
            self.missing.append(_HEADLESS if self._has_head or is_mixed else EXCERPT)
            excerpt.is_excerpt = True
            _hook_roots(excerpt)

    def _check_end(self) -> None:
        if self._is_open and self._table is not None:
            self.missing.append(f"it is cut short: table {self._table.name} has no COMMIT")

    def _enter(self, name: str, *, is_open: bool) -> IptablesTable:
        table = self.tables.setdefault(name, IptablesTable(name, self._family, self._source, self._sets))
        self._table, self.chains, self._is_open = table, table.chains, is_open
        return table


def _insert(table: IptablesTable, line: str) -> bool:
    """-I CHAIN [NUMBER] RULE, in the input of iptables-restore. False: there is no such place."""
    _, name, *arguments = line.split(maxsplit=3)
    number, rule = 1, " ".join(arguments)
    if arguments and (place := whole_number(arguments[0])) is not None:
        number, rule = place, " ".join(arguments[1:])
    chain = table.chain(name)
    if not 1 <= number <= len(chain.raw) + 1:
        return False
    chain.raw.insert(number - 1, f"-A {name} {rule}")
    return True


def _hook_roots(table: IptablesTable) -> None:
    """An excerpt without base chains is walked from the chains that none of its rules jumps to.

    Those of the nat table are entered where their targets may stand, all others at FORWARD.
    """
    if any(chain.hook is not None for chain in table.chains.values()):
        return
    reached = {match.group(1) for chain in table.chains.values() for raw in chain.raw if (match := _JUMP.search(raw))}
    for name, chain in table.chains.items():
        if name not in reached:
            of_sources = table.name == "nat" and not _leads_to(table, chain, _TO_DESTINATION)
            hook = "FORWARD" if table.name != "nat" else "POSTROUTING" if of_sources else "PREROUTING"
            chain.hook = Hook.named(hook)
            if table.name == "nat":
                chain.kind, chain.priority = "nat", BASE_CHAINS["nat"][hook]


def _leads_to(table: IptablesTable, start: Chain, target: re.Pattern[str]) -> bool:
    """Whether a rule of the chain, or of those that it jumps to, has such a target."""
    waiting, seen = [start], {start.name}
    while waiting:
        for raw in waiting.pop().raw:
            if target.search(raw):
                return True
            match = _JUMP.search(raw)
            if match is not None and match.group(1) in table.chains and match.group(1) not in seen:
                seen.add(match.group(1))
                waiting.append(table.chains[match.group(1)])
    return False
