"""Events that were lost on their way."""

from __future__ import annotations

import msgspec

COUNTS_LEFT_OUT = "counts of flows"  # where a trace's counters of flows beyond those that it holds are lost


class Losses(msgspec.Struct, frozen=True, tag_field="kind", tag="lost"):
    """Events lost on a node, by probe and place."""

    node: str
    probe: str
    where: str
    count: int
