"""Which of several policies need be tried as the one to edit, where each would get the same rule.

What a rule admits besides the flow grows with the pods that its policy selects. So a policy that applies for certain leaves
out of the question those that select the same pods or more, unless the change of one object for both directions is shorter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.patches.trial import PolicyChange
from kubectl_genainet.policy.reach.classes import NOBODY


class _Candidate(NamedTuple):
    change: PolicyChange
    pods: int  # the classes of pods that the policy selects
    sides: tuple[bool, bool]
    certain: bool
    size: int

    def makes_needless(self, other: _Candidate) -> bool:
        """Whether this change is at least as good, whatever else is changed with either."""
        if not self.certain or self.sides != other.sides or self.pods & ~other.pods:
            return False
        return self.pods != other.pods or self.size <= other.size


def narrowest(
    engine: PolicyEngine, changes: Sequence[PolicyChange], kept: Collection[ObjectRef]
) -> Sequence[PolicyChange]:
    """The changes without those that another makes needless; a policy in `kept` may be edited in both directions."""
    if len(changes) < 2:
        return changes
    left: list[_Candidate] = []
    for change in changes:
        candidate = _candidate(engine, change)
        if not any(one.makes_needless(candidate) for one in left) or change.ref in kept:
            left = [one for one in left if one.change.ref in kept or not candidate.makes_needless(one)]
            left.append(candidate)
    return [candidate.change for candidate in left]


def _candidate(engine: PolicyEngine, change: PolicyChange) -> _Candidate:
    size = len(msgspec.json.encode(change.object))
    policy = engine.policy_named(change.ref)
    if policy is None:
        return _Candidate(change, 0, (False, False), False, size)
    sure, unsure = engine.rows.classes.peer(policy.subject, NOBODY)
    certain = not (unsure or policy.not_evaluated or policy.premises)
    return _Candidate(change, sure | unsure, (policy.isolates_egress, policy.isolates_ingress), certain, size)
