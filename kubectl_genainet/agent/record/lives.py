"""The lives of the connections that the node follows: which of them get into trouble, and how long the others took.

A connection in trouble is one that a reader may ask about: not answered, refused, reset, dropped from, sent again, slow, or
silent for long. What was seen of a connection is held until that is known. Sightings are looked at as the kernel wrote
them: spelling them out would be most of what they cost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from kubectl_genainet.agent.record.histograms import Times
from kubectl_genainet.history.select import packed
from kubectl_genainet.model.events import Event, FlowCounters, IcmpError, PacketDropped, TcpRetransmit
from kubectl_genainet.model.history import ConnectionKept
from kubectl_genainet.model.packet import ALL_KEPT, FiveTuple, port_rank
from kubectl_genainet.model.reasons import HARMLESS_REASONS
from kubectl_genainet.wire.sightings import five_tuple

SLOW_NS = 500_000_000  # half of what a trace calls slow: nodes that measure a little less must keep it too
STALLED_NS = 1_500_000_000
UNANSWERED_NS = 900_000_000  # a client's TCP sends its SYN again after a second
AGAIN_NS = 500_000_000  # two SYNs so far apart are two
ENDED_NS = 2_000_000_000  # late records of a connection that is over
IDLE_NS = 300_000_000_000
MAX_LIVES = 20_000
MAX_HELD = 200  # records of one connection
MAX_TUPLES = 16  # of one connection: a scanner's SYNs, which may all have the same sequence number, are of many
_SYN, _ACK, _FIN, _RST = 2, 16, 1, 4
_KEY = slice(16, 53)  # source, destination, ports, protocol
# struct packet_event (wire/sightings.py): t_ns, seq, payload, flags
_LOOK = struct.Struct("<Q96xI8xI8xB")
_PORTS = struct.Struct("<48xHH")
assert _LOOK.size == 129


def key_of(flow: FiveTuple) -> bytes:
    """A tuple as a sighting has it."""
    ports = struct.pack("<HH", flow.sport, flow.dport)
    return packed(flow.src) + packed(flow.dst) + ports + bytes([flow.protocol.number])


def reverse(key: bytes) -> bytes:
    return key[16:32] + key[:16] + key[34:36] + key[32:34] + key[36:]


def flow_of(key: bytes) -> FiveTuple:
    sport, dport = struct.unpack_from("<HH", key, 32)
    return five_tuple(key[:16], key[16:32], sport, dport, key[36])


@dataclass(slots=True)
class Life:
    """What was seen of one connection on this node. `opening` is the tuple that it had first, from the client; times are 0 for
    what was not seen."""

    opening: bytes
    first_ns: int
    last_ns: int
    keys: list[bytes] = field(default_factory=list)  # from client to server
    sequences: list[int] = field(default_factory=list)  # of its SYNs
    syn_ns: int = 0
    answer_ns: int = 0
    request_ns: int = 0
    reply_ns: int = 0
    fins: int = 0  # 1: the client's, 2: the server's
    over: bool = False
    trouble: str = ""
    kept: bool = False  # all of it is written
    sightings: list[bytes] = field(default_factory=list)
    records: list[Event] = field(default_factory=list)
    counters: dict[tuple[object, ...], FlowCounters] = field(default_factory=dict)


class Lives:
    """Takes sightings and what else concerns connections; `write` and `write_sighting` get what is to be kept. `share` is how
    many connections in ALL_KEPT are kept whole whatever becomes of them: the examples."""

    def __init__(self, node: str, write: Callable[[Event], None], write_sighting: Callable[[bytes], None]) -> None:
        self.node = node
        self.share = ALL_KEPT
        self.begun = 0  # connections, in all
        self.not_held = 0
        self.times = Times()
        self._write, self._write_sighting = write, write_sighting
        self._lives: dict[int, Life] = {}  # by id, oldest first
        self._by_key: dict[bytes, tuple[Life, bool]] = {}  # both directions; True: towards the server
        self._by_seq: dict[int, Life] = {}  # of SYNs: what a translation leaves alone

    def __len__(self) -> int:
        return len(self._lives)

    def is_example(self, port: int) -> bool:
        return port_rank(port) < self.share

    def sighting(self, data: bytes) -> None:
        """One packet, as the kernel wrote it."""
        t_ns, seq, payload, flags = _LOOK.unpack_from(data)
        followed = self._by_key.get(data[_KEY])
        if followed is None or (flags & (_SYN | _ACK) == _SYN and followed[0].over):
            followed = self._new(data, t_ns, seq, flags)
        life, request = followed
        life.last_ns = t_ns
        ports = _PORTS.unpack_from(data)
        if life.kept or port_rank(max(ports)) < self.share:
            self._write_sighting(data)
        elif len(life.sightings) < MAX_HELD:
            life.sightings.append(data)
        if flags & (_SYN | _FIN | _RST):
            self._news(life, t_ns, flags, request)
        if payload:
            if request:
                life.request_ns = life.request_ns or t_ns
            elif not life.reply_ns:
                life.reply_ns = t_ns
                if life.request_ns and t_ns - life.request_ns > SLOW_NS:
                    self._trouble(life, "slow", t_ns)

    def _new(self, data: bytes, t_ns: int, seq: int, flags: int) -> tuple[Life, bool]:
        """The life of a tuple that was not known: a translation's other side, or a new one."""
        key = data[_KEY]
        opens = flags & (_SYN | _ACK) == _SYN
        life = self._by_seq.get(seq) if opens else None
        if life is not None and (life.over or t_ns - life.first_ns > IDLE_NS or len(life.keys) >= MAX_TUPLES):
            life = None
        if life is None:
            sport, dport = struct.unpack_from("<HH", key, 32)
            towards = opens or (flags & (_SYN | _ACK) != _SYN | _ACK and sport >= dport)
            life = Life(key if towards else reverse(key), t_ns, t_ns)
            self.begun += 1
            self._lives[id(life)] = life
            if len(self._lives) > MAX_LIVES:
                self._make_room()
        else:
            towards = True
        if opens:
            self._by_seq[seq] = life
            life.sequences.append(seq)
        forward = key if towards else reverse(key)
        life.keys.append(forward)
        self._by_key[forward] = (life, True)
        self._by_key[reverse(forward)] = (life, False)
        return life, towards

    def _news(self, life: Life, t_ns: int, flags: int, request: bool) -> None:
        if flags & _RST:
            if not life.fins:
                self._trouble(life, "reset" if life.answer_ns or life.request_ns else "refused", t_ns)
            life.over = True
        elif flags & _FIN:
            life.fins |= 1 if request else 2
            life.over = life.fins == 3
        elif not flags & _ACK:
            if not life.syn_ns:
                life.syn_ns = t_ns
            elif t_ns - life.syn_ns > AGAIN_NS:
                self._trouble(life, "not answered at once", t_ns)
        elif not life.answer_ns:
            life.answer_ns = t_ns

    def take(self, event: PacketDropped | IcmpError | TcpRetransmit | FlowCounters) -> None:
        """A drop, an ICMP error, a retransmission or counters of a followed connection."""
        flow = event.quoted if isinstance(event, IcmpError) else event.flow
        followed = self._by_key.get(key_of(flow))
        life = followed[0] if followed is not None else None
        if life is None or life.kept or self.is_example(max(flow.sport, flow.dport)):
            self._write(event)
        match event:
            case FlowCounters():
                if life is not None:
                    self._counted(life, event)
                return
            case PacketDropped():
                trouble = "" if event.reason in HARMLESS_REASONS else "dropped"
            case TcpRetransmit():
                trouble = "sent again"
            case _:
                trouble = "unreachable"
        if life is None:
            return
        life.last_ns = max(life.last_ns, event.t_ns)
        if not life.kept and len(life.records) < MAX_HELD:
            life.records.append(event)
        if trouble:
            self._trouble(life, trouble, event.t_ns)

    def _counted(self, life: Life, event: FlowCounters) -> None:
        key = (event.flow, event.netns, event.ifindex, event.point, event.began_ns)
        if key in life.counters or len(life.counters) < MAX_HELD:
            life.counters[key] = event
        life.last_ns = max(life.last_ns, event.last_ns)
        if event.silence_ns > STALLED_NS and not life.trouble:
            self._trouble(life, "stalled", event.t_ns)

    def _trouble(self, life: Life, why: str, t_ns: int) -> None:
        """From now on all of the connection is written; what was held comes first."""
        if life.trouble:
            return
        life.trouble, life.kept = why, True
        if self._all_examples(life):
            return
        for data in life.sightings:
            self._write_sighting(data)
        for event in (*life.records, *life.counters.values()):
            self._write(event)
        life.sightings, life.records = [], []
        self._say_kept(life, t_ns)

    def _all_examples(self, life: Life) -> bool:
        return self.share >= ALL_KEPT and not life.sightings

    def _say_kept(self, life: Life, t_ns: int) -> None:
        flows = tuple(map(flow_of, life.keys))
        self._write(ConnectionKept(node=self.node, t_ns=t_ns, why=life.trouble, flows=flows))

    def look(self, now_ns: int) -> None:
        """Once a second: what has waited too long is in trouble, what is over is let go of."""
        for life in list(self._lives.values()):
            if not life.trouble:
                waits = life.syn_ns and not life.answer_ns and not life.request_ns
                if waits and now_ns - life.syn_ns > UNANSWERED_NS:
                    self._trouble(life, "not answered", now_ns)
                elif life.request_ns and not life.reply_ns and not life.over and now_ns - life.request_ns > SLOW_NS:
                    self._trouble(life, "no reply yet", now_ns)
            if now_ns - life.last_ns > (ENDED_NS if life.over else IDLE_NS):
                self._end(life)

    def _end(self, life: Life) -> None:
        if life.trouble and self.share < ALL_KEPT:
            self._say_kept(life, life.last_ns)  # with the tuples that it had later
        self.times.take(life, flow_of(life.opening), flow_of(life.keys[-1] if life.keys else life.opening))
        self._forget(life)

    def _forget(self, life: Life) -> None:
        self._lives.pop(id(life), None)
        for key in life.keys:
            for direction in (key, reverse(key)):
                if self._by_key.get(direction, (None,))[0] is life:
                    del self._by_key[direction]
        for seq in life.sequences:
            if self._by_seq.get(seq) is life:
                del self._by_seq[seq]

    def _make_room(self) -> None:
        """The oldest tenth goes: what is not in trouble by now is written as totals."""
        for life in list(self._lives.values())[: MAX_LIVES // 10]:
            self.not_held += not life.over
            self._end(life)
