"""What one node, or the recorder of the cluster's objects, gave for a range of time."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import Block, Flag, decode_block, leading

MAX_BYTES = 512 << 20  # of all nodes' answers to one question
MAX_PLAIN = 4 << 30  # of their records, inflated
_FREE, _RATIO = 4 << 20, 100  # of one answer: as for a bundle, whose records shrink to a tenth or a twentieth


class Room:
    """What the answers of all nodes to one question may take, shared by who comes first; for several threads."""

    def __init__(self, size: int = MAX_BYTES, plain: int = MAX_PLAIN) -> None:
        self._size, self._plain = size, plain
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more."""
        with self._lock:
            self._size -= size
            return self._size >= 0

    def whole_blocks(self, answer: bytes) -> tuple[bytes, ...]:
        """The blocks that an answer begins with, as far as their records have room. No search beyond what is no block: a
        node could make it take hours."""
        own, blocks = _FREE + _RATIO * len(answer), []
        for block in leading(answer):
            own -= block.plain_size
            with self._lock:
                self._plain -= block.plain_size
                if own < 0 or self._plain < 0:
                    break
            blocks.append(block.data)
        return tuple(blocks)


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
