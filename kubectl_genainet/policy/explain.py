"""Why a direction of one flow has its verdict: every policy that bears on it, with the term that fails."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.policy.decide import Selected, TierOutcome, by_rank, run_tier, run_tiers
from kubectl_genainet.policy.matching.party import PolicyParty
from kubectl_genainet.policy.model import (
    Direction,
    DirectionResult,
    Effect,
    NotEvaluated,
    PolicyFlow,
    PolicyResult,
    PolicyVerdict,
    Reason,
    RuleAction,
    RuleResult,
)
from kubectl_genainet.policy.rules import Policy, PolicyRule, Tier

_EFFECT_OF = {RuleAction.ALLOW: Effect.ALLOWS, RuleAction.DENY: Effect.DENIES, RuleAction.PASS: Effect.PASSES}
_DECISIVE = frozenset(_EFFECT_OF.values())


class _Judge:
    """Judges the rules of policies against one flow in one direction, and notes what could not be evaluated."""

    def __init__(self, flow: PolicyFlow, direction: Direction, own: PolicyParty, peer: PolicyParty) -> None:
        self.flow, self.direction, self.own, self.peer = flow, direction, own, peer
        self.destination = peer if direction is Direction.EGRESS else own
        self._matches: dict[int, tuple[int, int]] = {}
        self.unsure: dict[int, list[NotEvaluated]] = {}  # by id of the policy

    def match(self, policy: Policy, rule: PolicyRule) -> tuple[int, int]:
        """The Matcher of decide.py, after `policy_result` has judged the policy."""
        return self._matches[id(rule)]

    def policy_result(self, selected: Selected) -> PolicyResult:
        policy, certain = selected.policy, selected.certain
        notes = self.unsure.setdefault(id(policy), [])
        if not certain:
            doubts = (*policy.not_evaluated, *((premise.field, premise.why) for premise in policy.premises))
            notes += [NotEvaluated(str(policy.ref), field, why) for field, why in doubts]
            subject = policy.subject.match(self.own, self.own)
            if subject.value is None:
                notes.append(NotEvaluated(str(policy.ref), "", subject.why))
        results = [self._rule_result(policy, rule) for rule in policy.rules(self.direction)]
        effect, decisive = _effect(results, certain)
        return PolicyResult(
            ref=policy.ref,
            family=policy.family,
            effect=effect,
            rule=decisive.number if decisive else None,
            rule_name=decisive.name if decisive else "",
            isolates=policy.isolates(self.direction),
            tier=policy.tier,
            rules=tuple(results),
        )

    def _rule_result(self, policy: Policy, rule: PolicyRule) -> RuleResult:
        peers = rule.match_peers(self.peer, self.own)
        ports = rule.match_ports(self.flow.protocol, self.flow.port, self.destination)
        if peers.value is False or ports.value is False:
            matches: bool | None = False
        elif peers.value is None or ports.value is None or rule.not_evaluated:
            matches = None
        else:
            matches = True
        if matches is None:
            notes = self.unsure[id(policy)]
            notes += [NotEvaluated(str(policy.ref), rule.field, m.why) for m in (peers, ports) if m.value is None]
            notes += [NotEvaluated(str(policy.ref), field, why) for field, why in rule.not_evaluated]
        self._matches[id(rule)] = (int(matches is True), int(matches is None))
        failed = peers.failed if peers.value is False else ports.failed if ports.value is False else None
        return RuleResult(rule.number, rule.name, rule.action, matches, peers.value, failed)


def _effect(results: Sequence[RuleResult], certain: bool) -> tuple[Effect, RuleResult | None]:
    """What a policy does by its rules' results, and the rule that this is about.

    The first rule that matches counts; without one, the first that selects the peer but not the port.
    """
    ruling = [r for r in results if r.action is not RuleAction.LOG]
    for result in ruling:
        if result.matches is None or (result.matches and not certain):
            return Effect.UNKNOWN, result
        if result.matches:
            return _EFFECT_OF[result.action], result
    if not ruling:
        return Effect.NO_RULES, None
    near = next((r for r in ruling if r.peer_matches is not False), None)
    return (Effect.PORTS_NOT_MATCHED, near) if near else (Effect.PEER_NOT_MATCHED, None)


def explain_direction(
    flow: PolicyFlow,
    direction: Direction,
    own: PolicyParty,
    peer: PolicyParty,
    tiers: Sequence[tuple[Tier, Sequence[Selected]]],
) -> DirectionResult:
    """Runs the tiers that apply to `own` and says which policies decided."""
    judge = _Judge(flow, direction, own, peer)
    listed: list[PolicyResult] = []
    isolating: list[PolicyResult] = []
    notes: list[NotEvaluated] = []
    may_allow = may_deny = False
    active = 1
    for tier, selected in tiers:
        results = [(chosen, judge.policy_result(chosen)) for chosen in selected]
        outcome = run_tier(tier, selected, direction, active, judge.match)
        bearing, stopped = _bearing(results)
        listed += bearing
        if stopped is None or stopped.isolates:
            isolating += [r for chosen, r in results if r.isolates and chosen.certain]
        notes += _notes(judge, results, bearing, outcome)
        may_allow, may_deny = may_allow or bool(outcome.allow), may_deny or bool(outcome.deny)
        active = outcome.passed_on
        if not active:
            break
    may_allow = may_allow or bool(active)
    if may_allow and may_deny:
        may_allow, may_deny = map(bool, run_tiers(tiers, direction, 1, judge.match))
    verdict = (
        PolicyVerdict.UNKNOWN if may_allow and may_deny else PolicyVerdict.DENY if may_deny else PolicyVerdict.ALLOW
    )
    return DirectionResult(
        verdict=verdict,
        reason=_reason(verdict, listed),
        isolated_by=tuple(r.ref for r in isolating),
        admitted_by=tuple(r.ref for r in listed if r.effect is Effect.ALLOWS) if verdict is PolicyVerdict.ALLOW else (),
        policies=tuple(listed),
        not_evaluated=tuple(dict.fromkeys(notes)),
    )


def _bearing(results: Sequence[tuple[Selected, PolicyResult]]) -> tuple[list[PolicyResult], PolicyResult | None]:
    """The policies of a tier that bear on its outcome, and the selected that decides.

    Where a rule decides, these are it, the unsure ones before it, and the other isolating policies that admit too.
    Where none does, they are all that isolate the pod.
    """
    by_ref = {id(selected): result for selected, result in results}
    bearing: list[PolicyResult] = []
    decided: PolicyResult | None = None
    for group in by_rank([selected for selected, _ in results]):
        for selected in group:
            result = by_ref[id(selected)]
            if result.effect is Effect.UNKNOWN or result.effect in _DECISIVE:
                bearing.append(result)
        decided = next((by_ref[id(o)] for o in group if by_ref[id(o)].effect in _DECISIVE), None)
        if decided is not None:
            break
    if decided is None:
        keep = {id(r) for r in bearing}
        return [r for _, r in results if id(r) in keep or r.isolates], None
    if decided.isolates and decided.effect is Effect.ALLOWS:
        shown = {id(r) for r in bearing}
        bearing += [
            r for _, r in results if id(r) not in shown and r.effect is Effect.ALLOWS and r.family is decided.family
        ]
    return bearing, decided


def _notes(
    judge: _Judge,
    results: Sequence[tuple[Selected, PolicyResult]],
    bearing: Sequence[PolicyResult],
    outcome: TierOutcome,
) -> list[NotEvaluated]:
    shown = {id(r) for r in bearing}
    notes = [n for selected, r in results if id(r) in shown for n in judge.unsure[id(selected.policy)]]
    if (outcome.allow or outcome.passed_on) and outcome.deny:
        for group in by_rank([selected for selected, _ in results]):
            if len(group) > 1:
                names = " and ".join(selected.policy.ref.name for selected in group)
                why = f"{names} have the same priority: which of them wins is not defined"
                notes.append(NotEvaluated(str(group[0].policy.ref), "spec.priority", why))
    return notes


def _reason(verdict: PolicyVerdict, listed: Sequence[PolicyResult]) -> Reason:
    if verdict is PolicyVerdict.UNKNOWN:
        return Reason.NOT_EVALUATED
    if any(r.effect in (Effect.ALLOWS, Effect.DENIES) for r in listed):
        return Reason.RULE
    if verdict is PolicyVerdict.DENY:
        return Reason.ISOLATED
    return Reason.EITHER_WAY if any(r.effect is Effect.UNKNOWN for r in listed) else Reason.DEFAULT
