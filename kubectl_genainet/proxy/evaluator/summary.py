"""The ends of a packet's ways, put together: the verdict, the backends, and what is not known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product

from kubectl_genainet.proxy.evaluator.ir import path_refs
from kubectl_genainet.proxy.evaluator.model import REFUSALS, BackendChoice, Evaluation, RulesetVerdict, WalkOutcome
from kubectl_genainet.proxy.evaluator.packet.state import State, address_of

MAX_ANSWERS = 1024  # combinations of answers to open questions that are compared
MAX_ROUNDS = 4  # of looking for questions that change nothing, since others were found to
_PASSES = (RulesetVerdict.ACCEPT, RulesetVerdict.NO_MATCH)

Doubts = tuple[tuple[str, bool], ...]
Result = tuple[object, ...]


class End:
    """How a way ended."""

    __slots__ = ("reason", "state", "verdict")

    def __init__(self, state: State, verdict: RulesetVerdict, reason: str = "") -> None:
        self.state, self.verdict, self.reason = state, verdict, reason

    @property
    def result(self) -> Result:
        """Where the packet ended, as far as it tells ways apart."""
        if self.verdict is RulesetVerdict.DNAT or self.state.redirected:
            return (self.verdict, self.state.dst, self.state.dport)
        return ("pass",) if self.verdict in _PASSES else (self.verdict,)


def summary(ends: list[End], family: int) -> Evaluation:
    """One evaluation of all ways. Where an open question changes the end, the verdict is UNKNOWN and names it."""

    def tell() -> tuple[WalkOutcome, ...]:
        return tuple(_outcome(end, family) for end in ends)

    assumed = tuple(dict.fromkeys(a for end in ends for a in end.state.assumed))
    doubtful = any(end.state.doubts for end in ends)
    reasons = tuple(dict.fromkeys(end.reason for end in ends if end.verdict is RulesetVerdict.UNKNOWN))
    results = {end.result for end in ends}
    masquerades = {end.state.masquerade for end in ends}
    masquerade: bool | None = True in masquerades
    unknown = reasons
    if doubtful and (len(results) > 1 or len(masquerades) > 1):
        by_result, by_masquerade = open_questions(ends, of_masquerade=False), open_questions(ends, of_masquerade=True)
        unknown = (*by_result, *(r for r in reasons if r not in by_result))
        masquerade = None if by_masquerade else masquerade
    if unknown:
        masquerade = None if reasons and masquerades != {True} else masquerade
        return Evaluation(RulesetVerdict.UNKNOWN, (), masquerade, unknown, tell, assumed)
    ways = _of_one_answer(ends) if doubtful else ends

    def tell_parts() -> tuple[WalkOutcome, ...]:
        return tuple(_outcome(end, family) for end in ways)

    verdict = verdict_of(end.verdict for end in ways)
    return Evaluation(verdict, _backends(ways, family), masquerade, (), tell, assumed, tell_parts)


def verdict_of(verdicts: Iterable[RulesetVerdict]) -> RulesetVerdict:
    """The verdict that all ways share; MIXED where some end otherwise than others."""
    distinct = set(verdicts)
    if len(distinct) == 1:
        return distinct.pop()
    return RulesetVerdict.ACCEPT if distinct and distinct <= set(_PASSES) else RulesetVerdict.MIXED


def told_once(ends: list[End], family: int) -> tuple[tuple[WalkOutcome, ...], tuple[str, ...]]:
    """The ways without those that a question only repeats, and the answers that the ways left go by all the same."""
    answers, ways = settled(ends, _as_told)
    presumed = tuple(_answer_text(label, choice) for label, choice in answers)
    return tuple(_outcome(end, family, doubts) for doubts, end in ways), presumed


def settled(ends: list[End], result: Callable[[End], Result]) -> tuple[Doubts, list[tuple[Doubts, End]]]:
    """The ways of one answer to each question that changes nothing, with the doubts left; and these answers.

    A question changes nothing where, the other doubts being equal, its ways end alike with "yes" and with "no", in equal
    shares. Without it others may turn out to change nothing either, so it is looked again, up to MAX_ROUNDS times.
    """
    answers: dict[str, bool] = {}
    ways = [(end.state.doubts, end) for end in ends]
    for _ in range(MAX_ROUNDS):
        idle = _idle_questions(ways, result)
        if not idle:
            break
        for doubts, _ in ways:
            for label, choice in doubts:
                if label in idle:
                    answers.setdefault(label, choice)
        ways = [
            (tuple(doubt for doubt in doubts if doubt[0] not in idle), end)
            for doubts, end in ways
            if all(answers.get(label, choice) is choice for label, choice in doubts)
        ]
    return tuple(answers.items()), ways


def _idle_questions(ways: list[tuple[Doubts, End]], result: Callable[[End], Result]) -> set[str]:
    shares: dict[tuple[str, Doubts], tuple[dict[Result, float], dict[Result, float]]]
    shares = defaultdict(lambda: (defaultdict(float), defaultdict(float)))
    for doubts, end in ways:
        for position, (label, choice) in enumerate(doubts):
            others = (*doubts[:position], *doubts[position + 1 :])
            probability = end.state.probability
            shares[label, others][choice][(*result(end), probability is None)] += probability or 0
    told = {label for label, _ in shares}
    return told - {label for (label, _), (no, yes) in shares.items() if not _equal(no, yes)}


def _equal(left: dict[Result, float], right: dict[Result, float]) -> bool:
    return left.keys() == right.keys() and all(abs(left[result] - right[result]) < 1e-9 for result in left)


def _as_told(end: End) -> Result:
    """What `rules why` says of a way's end: where, by which rule where one refuses, masqueraded or not, why not known."""
    state = end.state
    refused_by = path_refs(state.path)[-1:] if end.verdict in REFUSALS else ()
    return (*end.result, state.dnat and (state.dst, state.dport), state.masquerade, refused_by, end.reason)


def _outcome(end: End, family: int, doubts: Doubts | None = None) -> WalkOutcome:
    state = end.state
    backend = None
    if state.dnat:  # also where it was dropped afterwards: the translation was observable all the same
        backend = BackendChoice(address_of(state.dst, family), state.dport, state.probability, state.masquerade)
    elif state.handed_to is not None:
        address, port = state.handed_to
        backend = BackendChoice(address_of(address, family), port, state.probability, masquerade=False)
    labels = tuple(_answer_text(label, choice) for label, choice in (state.doubts if doubts is None else doubts))
    return WalkOutcome(end.verdict, backend, state.probability, state.masquerade, state.path, labels, end.reason)


def _answer_text(label: str, choice: bool) -> str:
    return f"{label}: {'yes' if choice else 'no'}"


def open_questions(ends: list[End], *, of_masquerade: bool) -> tuple[str, ...]:
    """The questions whose answers change where the packet ends (or whether it is masqueraded).

    All answers are judged together: for each combination, the set of ends that it leaves. Random ways of one
    combination are no difference; a combination that no way has is impossible (two devices at once).
    """

    def result_of(end: End) -> Result:
        return (end.state.masquerade,) if of_masquerade else end.result

    ways = _results_by_doubts([(end.state.doubts, end) for end in ends], result_of)
    if len({frozenset(results) for results in ways.values()}) == 1:
        return ()
    if 1 << len(_labels(ways)) > MAX_ANSWERS:
        ways = _results_by_doubts(settled(ends, result_of)[1], result_of)
    labels = _labels(ways)
    if 1 << len(labels) > MAX_ANSWERS:
        return labels
    remaining: dict[tuple[bool, ...], frozenset[Result]] = {}
    for answers in product((True, False), repeat=len(labels)):
        chosen = dict(zip(labels, answers, strict=True))
        fitting = [
            results
            for doubts, results in ways.items()
            if all(chosen[question] is choice for question, choice in doubts)
        ]
        if fitting:
            remaining[answers] = frozenset().union(*fitting)
    if of_masquerade:  # a Service of which some backends are masqueraded counts as masqueraded
        remaining = {answers: frozenset([(True,)]) if (True,) in r else r for answers, r in remaining.items()}
    if len(set(remaining.values())) == 1:
        return ()
    return tuple(label for i, label in enumerate(labels) if _turns(remaining, i)) or labels


def _results_by_doubts(ways: list[tuple[Doubts, End]], result: Callable[[End], Result]) -> dict[Doubts, set[Result]]:
    results: dict[Doubts, set[Result]] = {}
    for doubts, end in ways:
        results.setdefault(doubts, set()).add(result(end))
    return results


def _labels(ways: Iterable[Doubts]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for doubts in ways for label, _ in doubts))


def _turns(results_by_answers: dict[tuple[bool, ...], frozenset[Result]], position: int) -> bool:
    """Whether one question's answer alone changes the end, the others being equal."""
    for answers, results in results_by_answers.items():
        other = (*answers[:position], not answers[position], *answers[position + 1 :])
        if results_by_answers.get(other, results) != results:
            return True
    return False


def _of_one_answer(ends: list[End]) -> list[End]:
    """The ways of one combination of answers, where every combination ends alike."""
    chosen: dict[str, bool] = {}
    for end in ends:
        for label, choice in end.state.doubts:
            chosen.setdefault(label, choice)
        break
    ways = []
    for end in ends:
        if all(chosen.get(label, choice) is choice for label, choice in end.state.doubts):
            chosen.update(end.state.doubts)
            ways.append(end)
    return ways


def _backends(ends: list[End], family: int) -> tuple[BackendChoice, ...]:
    """The endpoints of all ways, each once, in the rules' order, with their probabilities added up."""
    backends: dict[tuple[int, int | None], tuple[float | None, bool]] = {}
    for end in ends:
        state = end.state
        if end.verdict is not RulesetVerdict.DNAT:
            continue
        key = (state.dst, state.dport)
        share, masquerade = backends.get(key, (0.0, False))
        total = None if share is None or state.probability is None else share + state.probability
        backends[key] = (total, masquerade or state.masquerade)
    return tuple(
        BackendChoice(address_of(dst, family), port, share if share is None else round(share, 9), masquerade)
        for (dst, port), (share, masquerade) in backends.items()
    )
