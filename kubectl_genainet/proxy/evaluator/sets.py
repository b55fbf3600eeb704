"""Sets and maps as rules ask them, for ipset and nftables alike."""

from __future__ import annotations

MAX_TRIED = 5000  # members that are compared with a key of which a part is not known
ANY = object()  # a bound that every value is within: the "*" of a map, the wildcard of a device


class SetLookup:
    """Members of a set or the keys of a map: exact ones hashed, intervals in a list. Keys are tuples of values.

    `kind` is the type as listed ("hash:ip,port", "ipv4_addr . inet_proto"), `width` its number of components.
    `exceptions` are members that do not count although a wider one has them (ipset's nomatch); `unread` says which
    members are not known: a miss is then no answer.
    """

    __slots__ = ("exact", "exceptions", "family", "intervals", "kind", "mask", "sets", "unread", "width")

    def __init__(self, kind: str, width: int) -> None:
        self.kind, self.width = kind, width
        self.exact: dict[tuple[object, ...], object] = {}
        self.intervals: list[tuple[tuple[tuple[object, object], ...], object]] = []
        self.exceptions: list[tuple[tuple[object, object], ...]] = []
        self.unread = ""
        self.family = 0  # of its addresses; 0: of either
        self.mask: int | None = None  # what is looked up of an address
        self.sets: list[SetLookup] = []  # its members, where it is a list of sets

    def get(self, key: tuple[object, ...]) -> object | None:
        exact = self.exact.get(key)
        if exact is not None:
            return exact
        for bounds, value in self.intervals:
            if all(_within(k, low, high) for k, (low, high) in zip(key, bounds, strict=False)):
                return value
        return None

    def has(self, key: tuple[object, ...]) -> bool | None:
        """Whether the key is a member; the narrowest member decides where exceptions are among them."""
        if self._is_exception(key):
            return None if self.unread else False
        if self.get(key) is not None:
            return None if self.unread and self.exceptions else True
        return None if self.unread else False

    def has_exception(self, key: tuple[object, ...]) -> bool | None:
        """Whether it is an exception that decides about the key (ipset's --return-nomatch asks that)."""
        if self.unread:
            return None
        if None in key:
            return None if self.exceptions else False
        return self._is_exception(key)

    def _is_exception(self, key: tuple[object, ...]) -> bool:
        narrow = min((_width(b) for b in self.exceptions if _covers(b, key)), default=None)
        if narrow is None or key in self.exact:
            return False
        wide = min((_width(b) for b, _ in self.intervals if _covers(b, key)), default=None)
        return wide is None or wide >= narrow

    def may_have(self, key: tuple[object, ...]) -> bool | None:
        """As `has`, for a key of which some components are None, not known: False where no member fits the others."""
        if self.unread:
            return None
        members: list[tuple[tuple[object, object], ...]] = [tuple((p, p) for p in exact) for exact in self.exact]
        members += [bounds for bounds, _ in self.intervals]
        if len(key) == 1 or len(members) > MAX_TRIED:
            return None if members else False
        fits = any(
            all(k is None or _within(k, low, high) for k, (low, high) in zip(key, bounds, strict=False))
            for bounds in members
        )
        return None if fits else False


def _covers(bounds: tuple[tuple[object, object], ...], key: tuple[object, ...]) -> bool:
    return all(_within(k, low, high) for k, (low, high) in zip(key, bounds, strict=False))


def _width(bounds: tuple[tuple[object, object], ...]) -> int:
    """How many values a member has, all components together."""
    total = 1
    for low, high in bounds:
        total *= high - low + 1 if isinstance(low, int) and isinstance(high, int) else 1
    return total


def _within(value: object, low: object, high: object) -> bool:
    if low is ANY:
        return True
    if isinstance(value, int) and isinstance(low, int) and isinstance(high, int):
        return low <= value <= high
    if isinstance(value, str) and isinstance(low, str) and isinstance(high, str):
        return low <= value <= high
    return False
