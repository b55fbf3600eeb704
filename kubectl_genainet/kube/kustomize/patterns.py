"""Regular expressions of input that may come from anybody, in time that its length bounds.

Python's own take years for some patterns of thirty characters. These are read into the states of an automaton (Glushkov's:
one a character of the pattern) and run over a value state set by state set. Literals, `.`, classes, groups, `|`, `*`, `+`
and `?` are read; that is what RE2 and Python have in common as far as names of Kubernetes need it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from kubectl_genainet.errors import InputError

MAX_PATTERN = 256  # characters
MAX_DEPTH = 20  # of groups in each other
MAX_VALUE = 253  # of a name in Kubernetes; a longer value matches nothing
MOST_STEPS = 1_000_000  # states followed in all, of one pattern
_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": str.isdigit,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
}
_Accepts = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a pattern: whether it may be empty, and the sets of states (as bits) that it begins and ends with."""

    empty: bool
    first: int
    last: int


_NOTHING = _Part(empty=True, first=0, last=0)


class Pattern:
    """A pattern of whole values. Raises InputError for one that is not read."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text.removeprefix("^").removesuffix("$"), 0
        self._accepts: list[_Accepts] = []
        self._follow: list[int] = []
        self._depth = 0
        if len(text) > MAX_PATTERN:
            raise self._unread()
        self._whole = self._alternatives()
        if self._at < len(self._text):
            raise self._unread()
        self._steps = 0
        self._next: dict[tuple[int, str], int] = {}

    def matches(self, value: str) -> bool:
        """Raises InputError where this pattern has taken its time."""
        if len(value) > MAX_VALUE:
            return False
        if not value:
            return self._whole.empty
        states = self._accepting(self._whole.first, value[0])
        for character in value[1:]:
            key = (states, character)
            if key not in self._next:
                self._next[key] = self._accepting(self._after(states), character)
            states = self._next[key]
        return bool(states & self._whole.last)

    def _after(self, states: int) -> int:
        following = 0
        for state in _bits(states):
            following |= self._follow[state]
        return following

    def _accepting(self, states: int, character: str) -> int:
        self._steps += 1 + states.bit_count()
        if self._steps > MOST_STEPS:
            raise InputError(f"the pattern {self._text[:64]!r} takes too long")
        return sum(1 << state for state in _bits(states) if self._accepts[state](character))

    def _unread(self) -> InputError:
        return InputError(f"the pattern {self._text[:64]!r} is not read")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise self._unread()
        self._at += 1
        return character

    def _alternatives(self) -> _Part:
        part = self._sequence()
        while self._peek() == "|":
            self._at += 1
            other = self._sequence()
            part = _Part(part.empty or other.empty, part.first | other.first, part.last | other.last)
        return part

    def _sequence(self) -> _Part:
        part = _NOTHING
        while self._peek() not in ("", "|", ")"):
            part = self._joined(part, self._repeated())
        return part

    def _joined(self, left: _Part, right: _Part) -> _Part:
        for state in _bits(left.last):
            self._follow[state] |= right.first
        return _Part(
            left.empty and right.empty,
            left.first | (right.first if left.empty else 0),
            right.last | (left.last if right.empty else 0),
        )

    def _repeated(self) -> _Part:
        part = self._atom()
        sign = self._peek()
        if not sign or sign not in "*+?":
            return part
        self._at += 1
        if sign in "*+":
            self._joined(part, part)
        return _Part(part.empty or sign in "*?", part.first, part.last)

    def _atom(self) -> _Part:
        character = self._take()
        if character == "(":
            if self._text.startswith("?:", self._at):
                self._at += 2
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise self._unread()
            part = self._alternatives()
            if self._take() != ")":
                raise self._unread()
            self._depth -= 1
            return part
        if character in "*+?{}^$":
            raise self._unread()
        return self._state(self._accepted_by(character))

    def _state(self, accepts: _Accepts) -> _Part:
        self._accepts.append(accepts)
        self._follow.append(0)
        bit = 1 << (len(self._accepts) - 1)
        return _Part(empty=False, first=bit, last=bit)

    def _accepted_by(self, character: str) -> _Accepts:
        if character == ".":
            return lambda c: c != "\n"
        if character == "[":
            return self._class()
        if character == "\\":
            return self._escaped()
        return lambda c: c == character

    def _escaped(self) -> _Accepts:
        name = self._take()
        if name.isalnum():
            if name.lower() not in _CLASSES:
                raise self._unread()
            accepts = _CLASSES[name.lower()]
            return accepts if name.islower() else lambda c: not accepts(c)
        return lambda c: c == name

    def _class(self) -> _Accepts:
        inverted = self._peek() == "^"
        self._at += inverted
        members: list[_Accepts] = []
        while self._peek() != "]" or not members:
            members.append(self._member())
        self._at += 1
        return lambda c: any(accepts(c) for accepts in members) is not inverted

    def _member(self) -> _Accepts:
        low = self._take()
        if low == "\\":
            return self._escaped()
        if low == "[":
            raise self._unread()
        if self._peek() != "-" or self._text[self._at + 1 : self._at + 2] in ("", "]"):
            return lambda c: c == low
        self._at += 1
        high = self._take()
        return lambda c: low <= c <= high


def _bits(states: int) -> list[int]:
    positions = []
    while states:
        lowest = states & -states
        positions.append(lowest.bit_length() - 1)
        states ^= lowest
    return positions


@lru_cache(maxsize=1024)
def pattern(text: str) -> Pattern:
    return Pattern(text)
