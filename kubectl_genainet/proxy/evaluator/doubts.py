"""What a walk could not know, as questions: asked once, and answered by what is known already where that decides."""

from __future__ import annotations

from kubectl_genainet.proxy.evaluator.conditions import FieldQuestion, question_of
from kubectl_genainet.proxy.evaluator.packet.state import Condition, State, address_of

Doubt = tuple[Condition, str]  # a condition that could not be answered, and how it is written


def local_question(address: int, family: int) -> str:
    return f"whether {address_of(address, family)} is an address of the node"


class Questions:
    """The questions of one walk by their label."""

    def __init__(self) -> None:
        self._by_label: dict[str, FieldQuestion] = {}
        self._labels: dict[FieldQuestion, str] = {}

    def of(self, state: State, doubt: Doubt) -> tuple[str, bool]:
        """The question's label, and the answer with which the condition holds."""
        condition, text = doubt
        question = question_of(condition)
        if question is None:
            return text, True
        plain = question._replace(inverted=False)
        if state.masquerade and plain.field.startswith(("source", "sport")):  # another one than before
            plain = plain._replace(field=f"translated {plain.field}")
        if plain.field == "destination is local":
            return local_question(state.dst, state.family), not question.inverted
        if plain.field == "source is local" and state.src is not None:
            return local_question(state.src, state.family), not question.inverted
        label = self._labels.get(plain)
        if label is None:
            label = text
            if question.inverted:
                label = label.removeprefix("! ").replace(" != ", " ")
            if plain.field.startswith("translated"):
                label += ", after the source was translated"
            self._labels[plain], self._by_label[label] = label, plain
        return label, not question.inverted

    def answered(self, state: State, label: str) -> bool | None:
        """The answer where an earlier one gives it: to the same question, or to one that excludes or implies it."""
        asked = self._by_label.get(label)
        for earlier, choice in state.doubts:
            if earlier == label:
                return choice
            known = self._by_label.get(earlier)
            if asked is None or known is None or known.field != asked.field:
                continue
            if choice and (known.high < asked.low or asked.high < known.low):
                return False
            if choice and asked.low <= known.low and known.high <= asked.high:
                return True
            if not choice and known.low <= asked.low and asked.high <= known.high:
                return False
        return None
