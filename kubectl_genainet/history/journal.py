"""The blocks of one run of a recorder: numbered, and each says what its readers must know of those before it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from kubectl_genainet.history.blocks import NO_FLAGS, Flag, Span, encode_block
from kubectl_genainet.history.store import SegmentWriter
from kubectl_genainet.model.events import Event


class Journal:
    def __init__(self, writer: SegmentWriter, boot_id: bytes) -> None:
        self._writer, self._boot_id = writer, boot_id
        self._session, self._number, self._failed = secrets.randbits(63), 0, False

    @property
    def empty(self) -> bool:
        """Whether no block was written yet."""
        return self._number == 0

    def begin(self, until_ns: int) -> bool:
        """Before each block: whether it begins a segment, and so must hold all that later ones build on."""
        whole = self._writer.needs_state or self._failed or self._writer.is_old(until_ns)
        if whole:
            self._writer.end_segment()
        return whole

    def write(
        self,
        records: list[Event],
        covers: Span,
        flags: Flag,
        *,
        earliest_ns: int | None,
        addresses: Iterable[int] | None,
    ) -> None:
        """The block, with `flags` for what its records are."""
        self._number += 1
        flags |= Flag.FIRST if self._number == 1 else NO_FLAGS
        flags |= Flag.UNWRITTEN if self._failed else NO_FLAGS
        block = encode_block(
            records,
            covers,
            earliest_ns=earliest_ns,
            session=self._session,
            number=self._number,
            boot_id=self._boot_id,
            flags=flags,
            addresses=addresses,
        )
        self._failed = not self._writer.append(block, covers.wall_from)
