"""What `diagnose` concludes: causes with their symptoms folded in, what was checked and is fine, what to do next."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.finding import Evidence, Remedy, Severity
from kubectl_genainet.model.results.path import PacketPath


class CheckState(Enum):
    """What became of one thing that could have been the cause."""

    FINE = "fine"
    FAULTY = "faulty"  # one of the causes is of this kind
    NOT_CHECKED = "not-checked"


class Checked(msgspec.Struct, frozen=True):
    """One thing that could have been the cause, and what was found. `why` says what was looked at, or why it was not."""

    what: str  # "policies", "rules", "endpoints", "dns", "mtu", "conntrack", "nodes"
    state: CheckState
    why: str


class Symptom(msgspec.Struct, frozen=True):
    """Something that was felt because of a cause. `count` counts what `unit` says."""

    check: str
    title: str
    count: int
    unit: str  # "connections", "packets", "queries", "findings"


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is broken, for whom, and what to do.

    `clients` and `backends` are "namespace/workload", or addresses where no pod has them. `count` of `unit` failed by it.
    `elsewhere` are the pods or nodes in which the same was seen, besides the one that `title` names. `first_s` and `last_s`
    are seconds after the start of the watch at which it was seen; None where a time is not known.
    """

    check: str
    title: str
    severity: Severity
    clients: tuple[str, ...]
    backends: tuple[str, ...]
    nodes: tuple[str, ...]
    count: int
    unit: str
    first_s: float | None
    last_s: float | None
    evidence: tuple[Evidence, ...]
    remedy: Remedy | None = None
    elsewhere: tuple[str, ...] = ()
    symptoms: tuple[Symptom, ...] = ()
    timeline: dict[int, int] = {}  # second of the watch -> how many connections failed then
    example: PacketPath | None = None  # one connection that the cause hit


class CountsBySecond(msgspec.Struct, frozen=True):
    """Something counted by the second of the watch; seconds without any are left out."""

    name: str  # "connections", "failed connections", "dropped packets", "retransmitted segments", "queries", …
    counts: dict[int, int]


class HeatCell(msgspec.Struct, frozen=True):
    """`count` replies in one second of the watch took up to `upto_ns`, and more than the next smaller bound."""

    second: int
    upto_ns: int
    count: int


class HeatMap(msgspec.Struct, frozen=True):
    """How long something took, by the second of the watch. The bounds double from one to the next."""

    name: str  # "handshake", "response", "DNS"
    cells: tuple[HeatCell, ...]


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What happened when. `began` is second 0 (RFC 3339); `seconds` is how many there are."""

    began: str
    seconds: int
    series: tuple[CountsBySecond, ...] = ()
    heat: tuple[HeatMap, ...] = ()


class Conclusion(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="diagnosis"):
    """The result of one run. `causes` come worst first; without any, nothing wrong was seen.

    `notes` are worth knowing and were not felt. `callers` are the workloads that call the target, with how many of their
    connections were seen (0: configured to call it, and silent). `next` are commands for what stayed unknown. `began` is when
    the first agent began to watch (RFC 3339; "" where none did).
    """

    target: str
    seconds: float
    connections: int
    failed: int
    queries: int | None  # None where DNS was not watched
    causes: tuple[Cause, ...]
    checked: tuple[Checked, ...]
    notes: tuple[str, ...]
    callers: dict[str, int]
    next: tuple[str, ...]
    nodes: tuple[str, ...]
    silent_nodes: tuple[str, ...]
    lost: int | None  # events; None where a node has not said
    began: str = ""
    timeline: Activity | None = None
