"""Evaluations that are known already: most packets differ in nothing but their source.

A walk notes what it asked of the packet's source, with the answers. A later packet that is else the same, and of whose
source the same questions have the same answers, goes the same ways: a walk depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from kubectl_genainet.proxy.evaluator.model import Evaluation
from kubectl_genainet.proxy.evaluator.packet.state import State

MAX_WAYS = 100_000  # that are kept of all walks together, at about 1 KiB each
MAX_SOURCES = 8  # kinds of sources that are told apart for one destination

Ask = Callable[[State], Any]


class Asked:
    """What one walk asked of the source. `touched` says that a question which is just being answered did."""

    __slots__ = ("answers", "states", "touched")

    def __init__(self) -> None:
        self.touched = False
        self.answers: list[tuple[Ask, State, Any]] = []
        self.states: dict[tuple[object, ...], State] = {}

    def note(self, ask: Ask, state: State, answer: object) -> None:
        """Keeps a question with the state at which it was asked: it may ask for more than the source."""
        key = (
            state.dst,
            state.dport,
            state.mark,
            state.known,
            state.connmark,
            state.dnat,
            state.masquerade,
            state.accepted,
            state.own,
            state.looped,
            state.ct,
            state.connmark_known,
            state.iif,
            state.oif,
            state.tos,
            state.ttl,
            state.added,
            state.nat_done,
        )
        kept = self.states.get(key)
        if kept is None:
            kept = self.states[key] = State.copy(state)
            kept.path, kept.doubts, kept.assumed = None, (), ()
        self.answers.append((ask, kept, answer))
        self.touched = False

    def same_for(self, src: int | None, sport: int | None) -> bool:
        """Whether all answers are the same for this source."""
        for state in self.states.values():
            state.sport = sport
            if state.masquerade:
                state.orig_src = src
            else:
                state.src = src
        return all(ask(state) == answer for ask, state, answer in self.answers)


class WatchedState(State):
    """A packet of which is noted when its source is asked for."""

    __slots__ = ("_orig_src", "_sport", "_src", "asked")

    asked: Asked

    @property
    def src(self) -> int | None:
        self.asked.touched = True
        return self._src

    @src.setter
    def src(self, value: int | None) -> None:
        self._src = value

    @property
    def orig_src(self) -> int | None:
        self.asked.touched = True
        return self._orig_src

    @orig_src.setter
    def orig_src(self, value: int | None) -> None:
        self._orig_src = value

    def translate_source(self, src: int | None) -> None:
        self._orig_src, self._src, self.masquerade = self._src, src, True

    @property
    def sport(self) -> int | None:
        self.asked.touched = True
        return self._sport

    @sport.setter
    def sport(self, value: int | None) -> None:
        self._sport = value

    def copy(self) -> State:
        before = self.asked.touched
        new = self.copy_to(object.__new__(WatchedState))
        new.asked, self.asked.touched = self.asked, before
        return new


class Memory:
    """The evaluations of one ruleset, by all of a packet but its source."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[tuple[Asked, Evaluation]]] = {}
        self._ways = 0

    def recall(self, key: Hashable, src: int | None, sport: int | None) -> Evaluation | None:
        for asked, evaluation in self._known.get(key, ()):
            if asked.same_for(src, sport):
                return evaluation
        return None

    def keep(self, key: Hashable, asked: Asked, evaluation: Evaluation, ways: int) -> None:
        self._ways += ways
        if self._ways > MAX_WAYS:
            self._known, self._ways = {}, ways
        known = self._known.setdefault(key, [])
        if len(known) < MAX_SOURCES and ways < MAX_WAYS:
            known.append((asked, evaluation))
