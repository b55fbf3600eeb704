"""What one node, or the recorder of the cluster's objects, gave for a range of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import Block, Flag, decode_block


@dataclass(frozen=True, slots=True)
class NodeRange:
    """What one node gave for the range. `complete`: all of what it wanted to give has come."""

    node: str
    blocks: tuple[Block, ...]
    complete: bool = True


def node_range(node: str, parts: Iterable[bytes], *, complete: bool = True) -> NodeRange:
    """Raises GenainetError for a block that is none: a connection that changes bytes is not believed."""
    blocks = []
    for data in parts:
        block = decode_block(data)
        if block is None:
            raise GenainetError(f"node {node} sent a part of its recording that is damaged")
        blocks.append(block)
    return NodeRange(node, tuple(blocks), complete and bool(blocks) and Flag.END in blocks[-1].flags)
