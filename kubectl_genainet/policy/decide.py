"""The one procedure that judges tiers of rules, for a single flow and for bit sets of peers alike.

Sets are integers. For one flow there is one bit. Each rule gives two sets, the peers that it matches for certain and
those that it may match; the outcome is the set of peers that may be allowed and the set that may be denied. A peer in
both is UNKNOWN. What hangs on the premises of policies is judged in every case, and is certain where all agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction
from kubectl_genainet.policy.rules import Policy, PolicyRule, Premise, Tier

# (policy, rule) -> (certainly matched, possibly matched beyond these)
Matcher = Callable[[Policy, PolicyRule], tuple[int, int]]


# The premises that hold or don't, in one of the possible cases; the others are not known.
Case = Mapping[Premise, bool]
_NOTHING_KNOWN: Case = MappingProxyType({})
_MOST_PREMISES = 5  # with more, each policy in doubt may be in force or not, whatever holds for the others


class Selected(NamedTuple):
    """A policy that applies to the pod, if it is in force; `chosen` is False where it can't be told whether it selects the
    pod."""

    policy: Policy
    chosen: bool

    @property
    def certain(self) -> bool:
        return self.in_force(_NOTHING_KNOWN) is True

    def in_force(self, case: Case) -> bool | None:
        """Whether the policy applies to the pod in a case."""
        if self.policy.premises:
            known = [case.get(premise) for premise in self.policy.premises]
            if False in known:
                return False
            if None in known:
                return None
        return self.chosen or None


class TierOutcome(NamedTuple):
    allow: int  # may be allowed by this tier
    deny: int  # may be denied by this tier
    passed_on: int  # may go on to the next tier


def run_tier(
    tier: Tier,
    selected: Sequence[Selected],
    direction: Direction,
    active: int,
    match: Matcher,
    case: Case = _NOTHING_KNOWN,
) -> TierOutcome:
    """Judges the peers `active` by the policies of one tier, in their order; the first rule that matches decides.

    Policies of equal rank (administrators' policies of one priority) are judged side by side: which of them wins isn't
    defined, so where they differ the peer is in both sets.
    """
    allow = deny = passed = 0
    free, isolated = active, 0  # not decided yet: where no policy may isolate, and where one may
    for group in by_rank(selected):
        undecided = free | isolated
        decided = 0
        for policy_of_rank in group:
            in_force = policy_of_rank.in_force(case)
            if in_force is False:
                continue
            policy = policy_of_rank.policy
            outcome = _by_rules(policy, direction, undecided, match)
            allow, deny, passed = allow | outcome.allow, deny | outcome.deny, passed | outcome.passed_on
            if in_force:
                decided |= undecided & ~outcome.left
            if policy.isolates(direction):
                isolated |= free & outcome.left
                if in_force:
                    free = 0
        free, isolated = free & ~decided, isolated & ~decided
        if not free and not isolated:
            break
    if tier.ends is RuleAction.DENY:
        return TierOutcome(allow, deny | isolated, passed | free)
    return TierOutcome(allow, deny, passed | free | isolated)


class _RulesOutcome(NamedTuple):
    allow: int
    deny: int
    passed_on: int
    left: int  # may be decided by no rule


def _by_rules(policy: Policy, direction: Direction, peers: int, match: Matcher) -> _RulesOutcome:
    """What the rules of a policy may do to some peers where it is in force."""
    allow = deny = passed = 0
    for rule in policy.rules(direction):
        if rule.action is RuleAction.LOG:
            continue
        sure, unsure = match(policy, rule)
        hit = peers & (sure | unsure)
        if rule.action is RuleAction.ALLOW:
            allow |= hit
        elif rule.action is RuleAction.DENY:
            deny |= hit
        else:
            passed |= hit
        if not policy.not_evaluated:
            peers &= ~sure
        if not peers:
            break
    return _RulesOutcome(allow, deny, passed, peers)


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
    may_allow, may_deny = _judged(tiers, direction, active, match, _NOTHING_KNOWN)
    unknown = may_allow & may_deny
    if not unknown:
        return may_allow, may_deny
    premises = list(dict.fromkeys(p for _, selected in tiers for chosen in selected for p in chosen.policy.premises))
    if not premises or len(premises) > _MOST_PREMISES:
        return may_allow, may_deny
    may_allow, may_deny = may_allow & ~unknown, may_deny & ~unknown
    for holds in itertools.product((True, False), repeat=len(premises)):
        allow, deny = _judged(tiers, direction, unknown, match, dict(zip(premises, holds, strict=True)))
        may_allow, may_deny = may_allow | allow, may_deny | deny
    return may_allow, may_deny


def _judged(
    tiers: Sequence[tuple[Tier, Sequence[Selected]]], direction: Direction, active: int, match: Matcher, case: Case
) -> tuple[int, int]:
    may_allow = may_deny = 0
    for tier, selected in tiers:
        outcome = run_tier(tier, selected, direction, active, match, case)
        may_allow |= outcome.allow
        may_deny |= outcome.deny
        active = outcome.passed_on
        if not active:
            break
    return may_allow | active, may_deny
