"""Rules that the kernel named (`--exact`), found again in the parsed ruleset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset


class ExactPath(msgspec.Struct, frozen=True):
    """The rules one packet met, in order. `unknown` counts hits on rules that the dump does not have."""

    node: str
    trace: int
    rules: tuple[RuleRef, ...]
    unknown: int = 0


def exact_paths(ruleset: Ruleset, hits: Iterable[RuleHit]) -> tuple[ExactPath, ...]:
    """The hits as one path a packet, in the kernel's order."""
    grouped: dict[int, list[RuleHit]] = {}
    for hit in hits:
        grouped.setdefault(hit.trace, []).append(hit)
    return tuple(_path(ruleset, trace, hits_of_packet) for trace, hits_of_packet in grouped.items())


def _path(ruleset: Ruleset, trace: int, hits: Sequence[RuleHit]) -> ExactPath:
    rules: list[RuleRef] = []
    unknown = 0
    for hit in hits:
        if hit.index == 0:
            continue  # a chain's policy, or its end
        rule = rule_of(ruleset, hit)
        if rule is None:
            unknown += 1
        else:
            rules.append(rule)
    return ExactPath(hits[0].node, trace, tuple(rules), unknown)


def rule_of(ruleset: Ruleset, hit: RuleHit) -> RuleRef | None:
    """The parsed rule behind a hit; None where the dump does not have it (it is older or newer than the rule)."""
    legacy = hit.engine == "TRACE"
    for table in ruleset.tables:
        if table.title != hit.table or table.family not in (0, hit.family) or ("legacy" in table.source) != legacy:
            continue
        chain = table.chains.get(hit.chain)
        if chain is not None and hit.index is not None and 0 < hit.index <= len(chain.rules):
            return chain.rules[hit.index - 1].ref
    return None


class RuleCount(msgspec.Struct, frozen=True, tag_field="kind", tag="exact"):
    """How many traced packets met a rule on a node (observed). `rule` None: rules that the dump does not have."""

    node: str
    packets: int
    rule: RuleRef | None


def exact_counts(dumps: Mapping[str, Sequence[RulesetDump]], hits: Iterable[RuleHit]) -> tuple[RuleCount, ...]:
    """Packets by node and rule, in the order in which the rules were first met."""
    by_node: dict[str, list[RuleHit]] = {}
    for hit in hits:
        by_node.setdefault(hit.node, []).append(hit)
    rule_counts: list[RuleCount] = []
    for node, node_hits in by_node.items():
        paths = exact_paths(parse_ruleset(dumps.get(node, ())), node_hits)
        counts = Counter(rule for path in paths for rule in path.rules)
        rule_counts += [RuleCount(node, packets, rule) for rule, packets in counts.items()]
        unknown = sum(path.unknown for path in paths)
        rule_counts += [RuleCount(node, unknown, None)] if unknown else []
    return tuple(rule_counts)
