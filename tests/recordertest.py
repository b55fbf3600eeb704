"""Recordings that real recorders make of a bundle, and real agents' servers that give them to who asks.

Without probes and a kernel: what a recorder is fed with, and its clocks, are the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.objects.recorder import ObjectsRecorder
from kubectl_genainet.agent.record.options import RecordOptions
from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.agent.serve.history import History
from kubectl_genainet.agent.serve.server import AnyCaller, Server
from kubectl_genainet.bundle import Bundle
from kubectl_genainet.history.rows import OBJECTS
from kubectl_genainet.history.select import packed
from kubectl_genainet.history.store import RecordingLimits
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import Bye, ClusterChanged, ConnectionCounts, Event, Hello, PacketSeen, Progress
from kubectl_genainet.model.history import COUNTED, ConnectionEnds, ends_of
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.run.agents import Agents
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.lab import unix_dial
from kubectl_genainet.wire.sightings import PACKET, POINTS, SIGHTING

SECOND = 1_000_000_000
CHANGED_S = 5  # after the end of a recording its objects change


class Clock:
    """A node's: monotonic time that the test moves, and the wall clock that is `ahead` of it."""

    def __init__(self, now_ns: int, ahead: int) -> None:
        self.now_ns, self.ahead = now_ns, ahead

    def mono(self) -> int:
        return self.now_ns

    def wall(self) -> int:
        return self.now_ns + self.ahead


def as_the_kernel_wrote_it(seen: PacketSeen) -> bytes:
    """The struct packet_event of a sighting."""
    other = seen.tunnel or seen.asked
    tcp = seen.tcp
    numbers = (
        seen.netns,
        seen.ifindex,
        tcp.seq if tcp else 0,
        tcp.ack if tcp else 0,
        seen.length,
        seen.payload,
        seen.sig,
    )
    kind = (seen.ip_id, SIGHTING, POINTS.index(seen.point), tcp.flags if tcp else 0, 0, 0, 0, 0)
    ends = (*_ends(seen.flow), *(_ends(other) if other is not None else (bytes(16), bytes(16), 0, 0, 0)))
    try:
        return PACKET.pack(
            seen.t_ns,
            seen.skb,
            *ends,
            int(seen.asked is not None),
            *numbers,
            *kind,
            seen.device.encode(),
            seen.cpu,
            0,
            seen.ttl,
        )
    except struct.error as error:
        raise AssertionError(f"{seen}: {error}") from None


def _ends(flow: FiveTuple) -> tuple[bytes, bytes, int, int, int]:
    return packed(flow.src), packed(flow.dst), flow.sport, flow.dport, flow.protocol.number


def record(
    bundle: Bundle, folder: Path, *, since_then: ClusterSnapshot | None = None, more_s: int = 0
) -> tuple[int, int]:
    """Has a recorder for each node and one for the objects keep what the bundle's nodes saw; the objects are `since_then` what
    became of them. Nodes record `more_s` longer, in which they see nothing.

    Returns the wall-clock time from the first node that watched to the last record.
    """
    hellos = {event.node: event for event in bundle.events if isinstance(event, Hello)}
    ahead = {node: hello.realtime_ns - hello.t_ns for node, hello in hellos.items()}
    watched = [e.t_ns + ahead[e.node] for e in bundle.events if isinstance(e, Progress) and e.stage == "attached"]
    times = [getattr(event, "t_ns", 0) + ahead.get(getattr(event, "node", ""), 0) for event in bundle.events]
    begin, end = min(watched), max(times) + 1
    for node, hello in hellos.items():
        own = [event for event in bundle.events if getattr(event, "node", "") == node]
        _record_node(own, hello, ahead[node], folder / node, of_drops=bundle.header.command == "drops", more_s=more_s)
    _record_objects(bundle, folder / OBJECTS, begin, end, since_then)
    return begin, end


def _record_node(events: list[Event], hello: Hello, ahead: int, folder: Path, *, of_drops: bool, more_s: int) -> None:
    clock = Clock(hello.t_ns, ahead)
    recorder = Recorder(hello.node, RecordOptions(folder=str(folder)), hello, wall=clock.wall, mono=clock.mono)
    ticked_ns = clock.now_ns
    ended_ns = None
    totals: dict[ConnectionEnds, ConnectionCounts] = {}
    for event in events:
        if isinstance(event, Hello | Bye):
            continue
        if isinstance(event, Progress) and event.stage == "detached":
            ended_ns = event.t_ns
        t_ns = getattr(event, "t_ns", 0)
        while t_ns - ticked_ns > SECOND:
            ticked_ns += SECOND
            clock.now_ns = ticked_ns
            recorder.tick()
        clock.now_ns = max(clock.now_ns, t_ns)
        if isinstance(event, ConnectionCounts):
            recorder.counted(_since(totals.get(ends_of(event)), event))
            totals[ends_of(event)] = event
        elif isinstance(event, PacketSeen):
            recorder.sighting(as_the_kernel_wrote_it(event))
        else:
            recorder.take(event, of_drops=of_drops)
    for _ in range(more_s):
        clock.now_ns += SECOND
        recorder.tick()
    recorder.close(None if more_s else ended_ns)


def _since(before: ConnectionCounts | None, now: ConnectionCounts) -> ConnectionCounts:
    """What the kernel counted between two totals of a trace."""
    if before is None:
        return now
    return msgspec.structs.replace(now, **{name: getattr(now, name) - getattr(before, name) for name in COUNTED})


def _record_objects(bundle: Bundle, folder: Path, begin: int, end: int, since_then: ClusterSnapshot | None) -> None:
    clock = Clock(begin - SECOND, 0)
    recorder = ObjectsRecorder(folder, RecordingLimits(), wall=clock.wall, mono=clock.mono)
    recorder.see(bundle.snapshot)
    for event in bundle.events:
        if isinstance(event, ClusterChanged):
            recorder.see(event.snapshot)
    clock.now_ns = end + CHANGED_S * SECOND
    recorder.flush()
    if since_then is not None:
        recorder.see(since_then)
        clock.now_ns += CHANGED_S * SECOND
        recorder.flush()
    recorder.close()


class RecordedCluster(Source):
    """A cluster whose agents are reached by the sockets in a folder; of its present nothing is known."""

    live = True

    def __init__(self, sockets: Path, *, namespace: str = "") -> None:
        super().__init__(namespace=namespace)
        self._sockets = sockets

    def _read(self) -> ClusterSnapshot:
        raise AssertionError("the objects of now are asked for")

    def agents(self) -> Agents:
        return Agents({path.stem: unix_dial(str(path)) for path in self._sockets.iterdir() if path.stem != OBJECTS})

    def objects_recorder(self) -> Agents:
        return Agents({OBJECTS: unix_dial(str(self._sockets / f"{OBJECTS}.sock"))})

    def __str__(self) -> str:
        return "the recorded cluster"


@contextlib.contextmanager
def served(folder: Path, sockets: Path) -> Iterator[RecordedCluster]:
    """Agents' servers for the recordings in FOLDER/NODE and FOLDER/objects, on unix sockets."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def nothing_waits() -> None:
        pass

    async def start() -> list[asyncio.Server]:
        servers = []
        for recording in folder.iterdir():
            server = Server(Inventory(recording.name, "/proc/self/ns/net"), "", AnyCaller())
            server.history = History(recording, recording.name, nothing_waits)
            servers.append(await asyncio.start_unix_server(server.handle, str(sockets / f"{recording.name}.sock")))
        return servers

    async def stop(servers: list[asyncio.Server]) -> None:
        for server in servers:
            server.close()

    sockets.mkdir(exist_ok=True)
    servers = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield RecordedCluster(sockets)
    finally:
        asyncio.run_coroutine_threadsafe(stop(servers), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
