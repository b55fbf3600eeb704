"""The one procedure that judges tiers of rules, for a single flow and for bit sets of peers alike.

Sets are integers. For one flow there is one bit. Each rule gives two sets, the peers that it matches for certain and
those that it may match; the outcome is the set of peers that may be allowed and the set that may be denied. A peer in
both is UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction
from kubectl_genainet.policy.rules import Policy, PolicyRule, Tier

# (policy, rule) -> (certainly matched, possibly matched beyond these)
Matcher = Callable[[Policy, PolicyRule], tuple[int, int]]


class Selected(NamedTuple):
    """A policy that applies to the pod; `certain` is False where it can't be told whether it selects the pod."""

    policy: Policy
    certain: bool


class TierOutcome(NamedTuple):
    allow: int  # may be allowed by this tier
    deny: int  # may be denied by this tier
    passed_on: int  # may go on to the next tier


def run_tier(
    tier: Tier, selected: Sequence[Selected], direction: Direction, active: int, match: Matcher
) -> TierOutcome:
    """Judges the peers `active` by the policies of one tier, in their order; the first rule that matches decides.

    Policies of equal rank (administrators' policies of one priority) are judged side by side: which of them wins isn't
    defined, so where they differ the peer is in both sets.
    """
    allow = deny = passed = 0
    undecided = active
    isolated = maybe_isolated = False
    for group in by_rank(selected):
        decided = 0
        for policy, certain in group:
            if policy.isolates(direction):
                isolated, maybe_isolated = isolated or certain, True
            open_ = undecided
            for rule in policy.rules(direction):
                if rule.action is RuleAction.LOG:
                    continue
                sure, unsure = match(policy, rule)
                if not certain:
                    sure, unsure = 0, sure | unsure
                hit = open_ & (sure | unsure)
                if rule.action is RuleAction.ALLOW:
                    allow |= hit
                elif rule.action is RuleAction.DENY:
                    deny |= hit
                else:
                    passed |= hit
                open_ &= ~sure
                if not open_:
                    break
            decided |= undecided & ~open_
        undecided &= ~decided
        if not undecided:
            break
    if maybe_isolated and tier.ends is RuleAction.DENY:
        deny |= undecided
        if isolated:
            undecided = 0
    return TierOutcome(allow, deny, passed | undecided)


def by_rank(selected: Sequence[Selected]) -> list[list[Selected]]:
    """Policies in their order, those of equal rank together. Only administrators' policies share ranks."""
    groups: list[list[Selected]] = []
    for ranked in selected:
        if (
            groups
            and ranked.policy.family is PolicyFamily.ADMIN
            and groups[-1][0].policy.order[0] == ranked.policy.order[0]
        ):
            groups[-1].append(ranked)
        else:
            groups.append([ranked])
    return groups


def run_tiers(
    tiers: Sequence[tuple[Tier, Sequence[Selected]]], direction: Direction, active: int, match: Matcher
) -> tuple[int, int]:
    """The peers that may be allowed and those that may be denied. What no tier decides is allowed."""
    may_allow = may_deny = 0
    for tier, selected in tiers:
        outcome = run_tier(tier, selected, direction, active, match)
        may_allow |= outcome.allow
        may_deny |= outcome.deny
        active = outcome.passed_on
        if not active:
            break
    return may_allow | active, may_deny
