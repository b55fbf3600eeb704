"""The format of a recording: self-contained blocks, one after the other. A segment is a file of them, a response a stream.

    header (HEADER, little endian) | index | payload | CRC-32 of all before

`covers` is the time that the block stands for: blocks of a session follow each other without a hole, so that what is missing
shows. The payload is the records as a MessagePack array, deflated (RFC 1951). The index holds the CRC-32 of each address in
the records, sorted: who asks for a few addresses need not inflate the rest. A reader that meets bytes that are no
block looks for the next MAGIC; any change of any byte of a block is noticed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from typing import Any

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS
from kubectl_genainet.model.events import Event

MAGIC = b"\x89GNB"
VERSION = 1
MAX_BLOCK = 64 << 20  # bytes, deflated
MAX_PLAIN = 256 << 20  # bytes, inflated
MAX_INDEX = 4096  # addresses; a block with more has no index
_LEVEL = 6
_SHORT = 160  # bytes: a record or two
_FAR = 1 << 62  # ns: the year 2116; sums and differences of two such times fit into a block again
# magic, version, flags, lengths of index, payload and records, wall from/until, monotonic from/until,
# wall time of the earliest record, session, number in the session, boot id
HEADER = struct.Struct("<4sHHIIIqqqqqQI16s")
_INDEX_LENGTH, _INDEX_LENGTH_AT = struct.Struct("<I"), struct.calcsize("<4sHH")
_CRC = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Event]] = msgspec.msgpack.Decoder(list[Event])


class Flag(IntFlag):
    STATE = 1  # it has records that later ones build on: namespaces, rules, objects
    INDEXED = 2  # the index names all addresses of its records
    FIRST = 4  # of a session: nothing is known of the time before
    END = 8  # of a response: it is whole
    WHOLE_STATE = 16  # its state builds on nothing before it
    UNWRITTEN = 32  # what came before it could not be written


NO_FLAGS = Flag(0)
_flags_of = lru_cache(maxsize=256)(Flag)  # a recording has few, and a lookup is quicker


class Span(msgspec.Struct, frozen=True, gc=False):
    """A time on both of a node's clocks, in ns. `wall` is since 1970."""

    wall_from: int
    wall_until: int
    mono_from: int
    mono_until: int

    @property
    def ahead(self) -> int:
        """What turns monotonic times of this span into wall-clock times."""
        return self.wall_until - self.mono_until


class Block(msgspec.Struct, frozen=True):
    """`covers` is the time it stands for, `earliest_ns` the wall-clock time of its earliest record. `session` is one run of a
    recorder. `data` is the whole block as written."""

    covers: Span
    earliest_ns: int
    session: int
    number: int
    boot_id: bytes
    flags: Flag
    data: bytes

    def has_any(self, addresses: AbstractSet[int]) -> bool:
        """Whether a record may name one of the addresses (`address_key`)."""
        if Flag.INDEXED not in self.flags:
            return True
        (length,) = _INDEX_LENGTH.unpack_from(self.data, _INDEX_LENGTH_AT)
        return not addresses.isdisjoint(_index_of(length // 4).unpack_from(self.data, HEADER.size))

    @property
    def plain_size(self) -> int:
        """Bytes of the records, inflated."""
        return int(HEADER.unpack_from(self.data)[5])

    def records(self) -> list[Event]:
        """The records. Raises BlockError for one that this version can't read: it was written by a newer one."""
        _, _, _, index, payload, plain, *_ = HEADER.unpack_from(self.data)
        begin = HEADER.size + index
        try:
            inflater = zlib.decompressobj()
            text = inflater.decompress(self.data[begin : begin + payload], plain + 1)
            if len(text) != plain:
                raise BlockError("a block's records have another length than its header says")
            return _decoder.decode(text)
        except (zlib.error, *DECODE_ERRORS) as error:
            raise BlockError(f"records that this version can't read: {error}") from None


@lru_cache(maxsize=256)
def _index_of(length: int) -> struct.Struct:
    return struct.Struct(f"<{length}I")


class BlockError(Exception):
    """A block whose bytes are whole, and whose records are not understood."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no block: `offset`, `length`. `cut`: they are the file's last, as where writing was cut short."""

    offset: int
    length: int
    cut: bool = False


def address_key(packed: bytes) -> int:
    """An address as the index has it: `packed` are its 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    return zlib.crc32(packed)


def encode_block(
    records: list[Event],
    covers: Span,
    *,
    earliest_ns: int | None = None,
    session: int,
    number: int,
    boot_id: bytes,
    flags: Flag = NO_FLAGS,
    addresses: Iterable[int] | None = None,
) -> bytes:
    """A block. `addresses` are those of all its records (None: not known)."""
    keys = sorted(set(addresses)) if addresses is not None else None
    if keys is not None and len(keys) <= MAX_INDEX:
        flags |= Flag.INDEXED
    else:
        keys = []
    plain = _encoder.encode(records)
    payload = _deflated(plain)
    head = HEADER.pack(
        MAGIC,
        VERSION,
        flags,
        4 * len(keys),
        len(payload),
        len(plain),
        covers.wall_from,
        covers.wall_until,
        covers.mono_from,
        covers.mono_until,
        min(covers.wall_from, earliest_ns if earliest_ns is not None else covers.wall_from),
        session,
        number,
        boot_id,
    )
    body = head + struct.pack(f"<{len(keys)}I", *keys) + payload
    return body + _CRC.pack(zlib.crc32(body))


def _deflated(plain: bytes) -> bytes:
    """As zlib has it (RFC 1950). What is short is stored as it is (RFC 1951, 3.2.4): it would hardly become shorter, and answers
    have many such blocks."""
    size = len(plain)
    if size > _SHORT:
        return zlib.compress(plain, _LEVEL)
    return b"\x78\x01\x01" + struct.pack("<HH", size, 0xFFFF - size) + plain + struct.pack(">I", zlib.adler32(plain))


def size_of(head: bytes) -> int | None:
    """How long the block is that begins with these bytes (HEADER.size of them); None where none begins so."""
    return _size(HEADER.unpack_from(head))


def _size(header: tuple[Any, ...]) -> int | None:
    magic, version, _, index, payload, plain = header[:6]
    if magic != MAGIC or version != VERSION or index > 4 * MAX_INDEX or payload > MAX_BLOCK or plain > MAX_PLAIN:
        return None
    return HEADER.size + int(index) + int(payload) + _CRC.size


def _block_at(data: memoryview, offset: int) -> Block | None:
    """The block that begins there; None where none does, where its bytes were changed, or where it tells of no time."""
    if len(data) - offset < HEADER.size:
        return None
    header = HEADER.unpack_from(data, offset)
    size = _size(header)
    if size is None or offset + size > len(data):
        return None
    end = offset + size - _CRC.size
    if zlib.crc32(data[offset:end]) != _CRC.unpack_from(data, end)[0]:
        return None
    flags, wall_from, wall_until, mono_from, mono_until, earliest, session, number, boot_id = header[2], *header[6:]
    times = (mono_from, mono_until, earliest)
    if not (0 <= wall_from < _FAR and 0 <= wall_until < _FAR and min(times) > -_FAR and max(times) < _FAR):
        return None
    span = Span(wall_from, wall_until, mono_from, mono_until)
    return Block(span, earliest, session, number, boot_id, _flags_of(flags), bytes(data[offset : offset + size]))


def decode_block(data: bytes) -> Block | None:
    """The block that these bytes are; None where they are none, were changed, or tell of no time."""
    block = _block_at(memoryview(data), 0)
    return block if block is not None and len(block.data) == len(data) else None


def scan(data: bytes) -> Iterator[Block | Damage]:
    """The blocks in `data`, and what lies between them that is none."""
    view = memoryview(data)
    offset, damaged_from = 0, None
    while offset < len(data):
        block = _block_at(view, offset)
        if block is None:
            damaged_from = offset if damaged_from is None else damaged_from
            following = data.find(MAGIC, offset + 1)
            offset = following if following >= 0 else len(data)
            continue
        if damaged_from is not None:
            yield Damage(damaged_from, offset - damaged_from)
            damaged_from = None
        yield block
        offset += len(block.data)
    if damaged_from is not None:
        yield Damage(damaged_from, len(data) - damaged_from, cut=True)


def leading(data: bytes) -> Iterator[Block]:
    """The blocks that `data` begins with, up to the first byte that belongs to none."""
    view, offset = memoryview(data), 0
    while (block := _block_at(view, offset)) is not None:
        yield block
        offset += len(block.data)


# An agent sends it each second while it has no block to give. Who asks gives up a node that sends nothing, and leaves these out.
ALIVE = encode_block([], Span(0, 0, 0, 0), session=0, number=0, boot_id=bytes(16), flags=Flag.STATE)
