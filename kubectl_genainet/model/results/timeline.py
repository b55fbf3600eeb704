"""What `timeline` returns: what was felt, what changed, and when it began."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.finding import Certainty, ObjectRef


class SeriesName(Enum):
    FAILURES = "failures"
    LATENCY = "latency"
    DNS = "dns"
    STALLS = "stalls"
    DROPS = "drops"


class TimelineChangeKind(Enum):
    ROLLOUT = "rollout"
    ENDPOINTS = "endpoints"
    SERVICE = "service"
    POLICY = "policy"
    RULES = "kube-proxy rules"
    NODE = "node"
    COREDNS = "CoreDNS"
    COUNTER = "counter"
    POD = "pod"
    GATEWAY = "gateway"
    OTHER = "other"


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was felt, a value for each bucket of time; None where the recording does not say. `what` tells how it was
    counted."""

    name: SeriesName
    unit: str
    what: str
    values: tuple[float | None, ...]


class TimelineChange(msgspec.Struct, frozen=True, kw_only=True):
    """Something that changed, as the API server or a node reported it. `at_s` counts from the start of the timeline.

    `touches` says what of the target it is about ("" where it is about something else). `fields` are the paths that changed.
    """

    at_s: float
    time: str
    kind: TimelineChangeKind
    what: str
    object: ObjectRef | None = None
    node: str = ""
    touches: str = ""
    fields: tuple[str, ...] = ()
    certainty: Certainty = Certainty.OBSERVED


class EarlierChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change that came before an onset, `before_s` seconds; negative within the bucket in which the onset lies."""

    change: TimelineChange
    before_s: float


class Onset(msgspec.Struct, frozen=True, kw_only=True):
    """A moment at which something felt became worse, and stayed so for a while: `at_s` is the start of a bucket, `until_s` the
    end of the last bucket that is as bad.

    `series` rose by then, the one that rose most first: from `before` to `after`, its means on both sides. `suspects` are the
    changes that came just before, what touches the target first, the nearest first: what came before is not thereby a cause.
    """

    at_s: float
    time: str
    until_s: float
    series: tuple[SeriesName, ...]
    before: float
    after: float
    suspects: tuple[EarlierChange, ...]


class Hole(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the time of which a node's recording says nothing, or not all."""

    from_s: float
    until_s: float
    node: str
    why: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="timeline"):
    """`method` names how the onsets were found; "" where they were not looked for, and `notes` say why."""

    target: str
    since: str
    until: str
    bucket_s: int
    seconds: float
    series: tuple[Series, ...]
    onsets: tuple[Onset, ...]
    changes: tuple[TimelineChange, ...]
    method: str
    holes: tuple[Hole, ...] = ()
    notes: tuple[str, ...] = ()
