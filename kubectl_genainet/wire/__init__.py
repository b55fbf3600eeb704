"""The stream between agent and client: NDJSON, versioned, first record Hello, last record Bye."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kubectl_genainet import __version__
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.model.events import Event, Hello, Sightings
from kubectl_genainet.wire import sightings

PROTOCOL = 2
VERSION_HEADER = "Genainet-Version"  # the agent's, in every response: a request that it can't read has no Hello
MAX_RECORD = 64 << 20  # bytes; a ruleset of 250,000 lines is about 40 MB

_SAME_VERSION = "Run `kubectl genainet deploy` with this client, or install the client of the agent's version."
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class FilterEntry(msgspec.Struct, frozen=True):
    """Packets to follow: those with this address and port (0: any) and protocol ("": any), as source or destination."""

    ip: str
    port: int = 0
    protocol: str = ""


# What is followed: the same for all probes, or what differs by probe.
Filters = tuple[FilterEntry, ...] | dict[str, tuple[FilterEntry, ...]]


class CheckRequest(msgspec.Struct, frozen=True):
    """A connection that the agent opens from inside the namespace of the pod that has the address `from_ip`."""

    from_ip: str
    host: str  # address to connect to
    port: int
    protocol: str = "TCP"
    path: str = ""  # "" connects only; else an HTTP GET
    host_header: str = ""
    count: int = 1
    interval_s: float = 1.0
    name: str = ""  # looked up first, as the pod would; "" for none


MAX_TIMEOUT_S = 3600.0  # of a TraceRequest


class TraceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client may ask of an agent. All bounds are enforced by the agent; see `agent.limits`.

    `own_filters`, by probe, take the place of `filters`.
    """

    filters: tuple[FilterEntry, ...]
    own_filters: dict[str, tuple[FilterEntry, ...]] = {}
    probes: tuple[str, ...] = ("packet",)
    timeout_s: float = 30.0
    max_events: int = 1_000_000
    max_bytes: int = 1 << 30
    rulesets: bool = True
    node_when_seen: bool = False  # the node's namespaces and rules come before its first packet, else at the start
    exact: bool = False  # have the kernel tell which rules the packets to `filters` meet (changes the node meanwhile)
    check: CheckRequest | None = msgspec.field(default=None, name="probe")
    options: dict[str, str] = {}
    http: bool = False  # read heads of clear HTTP/1.1 messages, and numbers of HTTP/2 streams, of the followed ports
    cpu_percent: float = 5.0  # of one core, that following packets and DNS exchanges may take on the node
    events_per_second: int = 20_000  # that the reader keeps up with


MAX_HISTORY_ADDRESSES = 5_000  # of a HistoryRequest; who wants more asks for all


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a node's recording is asked for: from `since_ns` until `until_ns` (wall clock), some parts (history/select.py;
    none: all), of some addresses (none: all). The answer is blocks (history/blocks.py), the last with the flag END."""

    since_ns: int
    until_ns: int
    parts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    max_bytes: int = 256 << 20


def encode(event: Event) -> bytes:
    """One record as a line, newline included."""
    return _encoder.encode(event) + b"\n"


def decode(line: bytes) -> Event:
    """One line as a record. Raises GenainetError for a line that is none (damaged, or from a newer agent)."""
    try:
        return _decoder.decode(line)
    except DECODE_ERRORS as error:
        raise GenainetError(f"the stream holds a record that this version can't read: {error}") from None


def expand(event: Event) -> Iterable[Event]:
    """The records that one of the wire stands for: itself, or many. Raises GenainetError for one that is damaged."""
    return sightings.unpack(event) if isinstance(event, Sightings) else (event,)


def check_is_of(event: Event, node: str) -> None:
    """Raises GenainetError for a record that an agent of the node has no business to send: of another node, or of the cluster's
    objects. Who has one node would speak for all."""
    said = getattr(event, "node", None)
    if said != node:
        of = f"node {said}" if said else "the cluster's objects"
        raise GenainetError(f"node {node} sent a record of {of}: its agent is not believed", hint="Look at that node.")


def skew(node: str, agent_version: str) -> tuple[str, str]:
    """What to say, and what to do, of an agent of another version ("": it did not say); ("", "") of the same."""
    if agent_version == __version__:
        return "", ""
    versions = f"the agent on node {node} is version {agent_version or 'unknown'}, this client {__version__}"
    return versions, _SAME_VERSION


def check_hello(hello: Hello) -> None:
    """Raises GenainetError when the agent speaks another protocol version than this client."""
    if hello.protocol != PROTOCOL:
        raise GenainetError(
            f"the agent on node {hello.node} ({hello.version}) speaks protocol {hello.protocol}, "
            f"this client {PROTOCOL}",
            hint=_SAME_VERSION,
        )
