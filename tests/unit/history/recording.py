"""Small recordings for the tests of history/."""

from __future__ import annotations

from pathlib import Path

from kubectl_genainet.history.blocks import NO_FLAGS, Flag, Span, encode_block
from kubectl_genainet.history.ranges import NodeRange, node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.select import Selection, index_of
from kubectl_genainet.history.store import RecordingLimits, SegmentWriter
from kubectl_genainet.model.events import Event, Hello, Point, Sightings, TcpRetransmit, Tick
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.wire.sightings import PACKET

NODE = "node-1"
SECOND = 10**9
MONO = 1_000 * SECOND  # the node's clock when the recording begins
WALL = 1_700_000_000 * SECOND  # the wall clock then
BOOT = bytes(range(16))


def flow(port: int = 40_000, dst: str = "10.96.0.5") -> FiveTuple:
    return FiveTuple("10.244.1.7", port, dst, 80, Protocol.TCP)


def resent(at_s: float, port: int = 40_000, dst: str = "10.96.0.5") -> TcpRetransmit:
    return TcpRetransmit(node=NODE, t_ns=MONO + int(at_s * SECOND), netns=1, flow=flow(port, dst), state="ESTABLISHED")


def sighting(at_s: float, port: int = 40_000, dst: str = "10.96.0.5") -> bytes:
    """A packet as the kernel writes it."""

    def mapped(ip: str) -> bytes:
        return b"\0" * 10 + b"\xff\xff" + bytes(map(int, ip.split(".")))

    nothing = (bytes(16), bytes(16), 0, 0, 0, 0)
    place = (7, 2, 1, 0, 60, 0, 0, 1)
    kind = (1, (Point.RX, Point.TX, Point.DROP).index(Point.TX), 2, 0, 0, 0)
    ends = (mapped("10.244.1.7"), mapped(dst), port, 80, 6)
    return PACKET.pack(MONO + int(at_s * SECOND), 1, *ends, *nothing, *place, *kind, 0, b"eth0", 0, 0, 64)


class Recording:
    """Writes blocks of `length_s` one after the other; `wall_s` and `mono_s` are where the next begins."""

    def __init__(self, folder: Path, bounds: RecordingLimits | None = None, *, session: int = 1) -> None:
        self.folder = folder
        self.writer = SegmentWriter(folder, bounds or RecordingLimits(size=64 << 20, age_s=1e6))
        self.session, self.number = session, 0
        self.wall_s = self.mono_s = 0.0
        self.boot_id = BOOT

    def block(self, *records: Event, length_s: float = 5.0, flags: Flag = NO_FLAGS) -> bytes:
        self.number += 1
        covers = Span(
            WALL + int(self.wall_s * SECOND),
            WALL + int((self.wall_s + length_s) * SECOND),
            MONO + int(self.mono_s * SECOND),
            MONO + int((self.mono_s + length_s) * SECOND),
        )
        data = encode_block(
            list(records),
            covers,
            session=self.session,
            number=self.number,
            boot_id=self.boot_id,
            flags=flags | (Flag.FIRST if self.number == 1 else NO_FLAGS),
            addresses=index_of(list(records)),
        )
        self.writer.append(data, covers.wall_until)
        self.wall_s += length_s
        self.mono_s += length_s
        return data

    def range(self, since_s: float, until_s: float, wanted: Selection | None = None) -> NodeRange:
        since, until = WALL + int(since_s * SECOND), WALL + int(until_s * SECOND)
        return node_range(NODE, RangeReader(self.folder, NODE, since, until, wanted).blocks())

    def events(self, since_s: float, until_s: float, wanted: Selection | None = None) -> list[Event]:
        return [record for block in self.range(since_s, until_s, wanted).blocks for record in block.records()]

    def gaps(self, since_s: float, until_s: float) -> list[tuple[float, float, str]]:
        """(since, until, why), in seconds of the recording."""
        return [
            ((g.since_ns - WALL) / SECOND, (g.until_ns - WALL) / SECOND, g.why)
            for g in self.events(since_s, until_s)
            if isinstance(g, Gap)
        ]


def hello() -> Hello:
    return Hello(
        node=NODE,
        protocol=2,
        version="1",
        kernel="6.1",
        boot_id="00000000-0000-0000-0000-00000000000b",
        t_ns=MONO,
        realtime_ns=WALL,
        tier="tracepoint",
        probes=("packet", "connections", "drops", "dns"),
    )


def tick(at_s: float) -> Tick:
    return Tick(node=NODE, t_ns=MONO + int(at_s * SECOND))


def sightings(*data: bytes) -> Sightings:
    return Sightings(node=NODE, data=b"".join(data))
