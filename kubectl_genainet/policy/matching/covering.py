"""Whether blocks hold every address of an IP version: then a rule with them admits any name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_genainet.policy.matching.peers import BlockPeer


def hold_all(blocks: Sequence[BlockPeer], version: int) -> bool:
    """Whether blocks together, less their exceptions, are every address of a version."""
    ranges = sorted(r for peer in blocks if peer.block.version == version for r in _ranges(peer))
    next_address = 0
    for first, last in ranges:
        if first > next_address:
            return False
        next_address = max(next_address, last + 1)
    return next_address == 1 << (32 if version == 4 else 128)


def _ranges(peer: BlockPeer) -> Iterator[tuple[int, int]]:
    """The first and the last address of each part that a block holds between its exceptions."""
    start = peer.block.first
    for hole in sorted(peer.excepts, key=lambda e: e.first):
        if hole.version == peer.block.version:
            if start < hole.first:
                yield start, hole.first - 1
            start = max(start, hole.last + 1)
    if start <= peer.block.last:
        yield start, peer.block.last
