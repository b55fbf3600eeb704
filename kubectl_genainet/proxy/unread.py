"""What of a ruleset could not be read: named, with what it may change."""

from __future__ import annotations

from enum import Enum

import msgspec


class Affects(Enum):
    """What an unread part may change."""

    EVERYTHING = "everything"  # any packet's way: rules or whole tables are missing
    SET = "set"  # who is in one set
    RULE = "rule"  # one rule: the evaluation names it where a packet meets it
    EXCERPT = "excerpt"  # what stands around an excerpt: flows are judged by what is there, and that is said
    NOTHING = "nothing"  # no packet's way: names, counters


class Unread(msgspec.Struct, frozen=True):
    """A part that was not read. `source` is the dump ("iptables-nft"), `where` the table or the set."""

    source: str
    what: str
    where: str = ""
    scope: Affects = Affects.EVERYTHING

    @property
    def anywhere(self) -> bool:
        return self.scope is Affects.EVERYTHING

    def __str__(self) -> str:
        return f"{self.source}: {self.where + ': ' if self.where else ''}{self.what}"
