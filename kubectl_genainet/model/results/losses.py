"""Events that were lost on their way."""

from __future__ import annotations

import msgspec


class Losses(msgspec.Struct, frozen=True, tag_field="kind", tag="lost"):
    """Events lost on a node, by probe and place."""

    node: str
    probe: str
    where: str
    count: int
