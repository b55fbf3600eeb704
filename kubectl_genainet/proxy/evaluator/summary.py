"""The ends of a packet's ways, put together: the verdict, the backends, and what is not known."""

from __future__ import annotations

from kubectl_genainet.proxy.evaluator.ir import State, address_of
from kubectl_genainet.proxy.evaluator.model import BackendChoice, Evaluation, Outcome, Verdict


class End:
    """How a way ended."""

    __slots__ = ("reason", "state", "verdict")

    def __init__(self, state: State, verdict: Verdict, reason: str = "") -> None:
        self.state, self.verdict, self.reason = state, verdict, reason


def summary(ends: list[End], family: int) -> Evaluation:
    """One evaluation of all ways. Where an open question changes the end, the verdict is UNKNOWN and names it."""

    def tell() -> tuple[Outcome, ...]:
        return tuple(_outcome(end, family) for end in ends)

    if not any(end.state.doubts or end.verdict is Verdict.UNKNOWN for end in ends):
        verdicts = {end.verdict for end in ends}
        verdict = verdicts.pop() if len(verdicts) == 1 else _mixed(verdicts)
        return Evaluation(verdict, _backends(ends, family), any(end.state.masquerade for end in ends), (), tell)
    doubts = tuple(dict.fromkeys(label for end in ends for label, _ in end.state.doubts))
    open_questions = [label for label in doubts if _matters(label, ends)]
    reasons = tuple(dict.fromkeys(end.reason for end in ends if end.verdict is Verdict.UNKNOWN))
    if open_questions or reasons:
        masquerade = {end.state.masquerade for end in ends}
        return Evaluation(
            Verdict.UNKNOWN,
            (),
            masquerade.pop() if len(masquerade) == 1 else None,
            tuple(open_questions) + reasons,
            tell,
        )
    told = [end for end in ends if not any(choice for _, choice in end.state.doubts)] if doubts else ends
    verdicts = {end.verdict for end in told}
    backends = _backends(told, family)
    verdict = verdicts.pop() if len(verdicts) == 1 else _mixed(verdicts)
    return Evaluation(verdict, backends, _masquerade(ends, told), (), tell)


def _outcome(end: End, family: int) -> Outcome:
    state = end.state
    backend = None
    if state.dnat:  # also where it was dropped afterwards: the translation was observable all the same
        backend = BackendChoice(address_of(state.dst, family), state.dport, state.probability, state.masquerade)
    labels = tuple(f"{label}: {'yes' if choice else 'no'}" for label, choice in state.doubts)
    return Outcome(end.verdict, backend, state.probability, state.masquerade, state.path, labels)


def _matters(label: str, ends: list[End]) -> bool:
    """Whether the answer to an open question changes where the packet ends: then the verdict is not known."""
    ways: tuple[set[object], set[object]] = (set(), set())
    for end in ends:
        answers = {choice for asked, choice in end.state.doubts if asked == label} or {True, False}
        result = (end.verdict, end.state.dst, end.state.dport) if end.verdict is Verdict.DNAT else (end.verdict,)
        for answer in answers:
            ways[answer].add(result)
    return ways[0] != ways[1]


def _mixed(verdicts: set[Verdict]) -> Verdict:
    for verdict in (Verdict.UNKNOWN, Verdict.DNAT, Verdict.REJECT, Verdict.DROP, Verdict.ACCEPT):
        if verdict in verdicts:
            return verdict
    return Verdict.NO_MATCH


def _backends(ends: list[End], family: int) -> tuple[BackendChoice, ...]:
    """The endpoints of all ways, each once, in the rules' order, with their probabilities added up."""
    found: dict[tuple[int, int | None], tuple[float | None, bool]] = {}
    for end in ends:
        state = end.state
        if end.verdict is not Verdict.DNAT:
            continue
        key = (state.dst, state.dport)
        share, masquerade = found.get(key, (0.0, False))
        total = None if share is None or state.probability is None else share + state.probability
        found[key] = (total, masquerade or state.masquerade)
    return tuple(
        BackendChoice(address_of(dst, family), port, share if share is None else round(share, 9), masquerade)
        for (dst, port), (share, masquerade) in found.items()
    )


def _masquerade(ends: list[End], told: list[End]) -> bool | None:
    answer = any(end.state.masquerade for end in told)
    if len(ends) == len(told):
        return answer
    return answer if answer == any(end.state.masquerade for end in ends) else None
