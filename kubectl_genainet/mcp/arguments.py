"""What a tool may be asked: a value for each, from which its JSON Schema is made."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_WATCH_S = 120.0
MAX_LAST = 1_000_000

TargetText = Annotated[
    str,
    Meta(description="svc/NAME[:PORT], pod/[NAMESPACE/]NAME, deploy/NAME or IP[:PORT]; empty: all of the namespace."),
]
WatchSeconds = Annotated[
    float, Meta(ge=1, le=MAX_WATCH_S, description="How long to watch live packets. A recording is read as it is.")
]
NodeName = Annotated[str, Meta(description="Only what this node sees.")]
PodName = Annotated[str, Meta(description="pod/[NAMESPACE/]NAME: only what this client does.")]


class ScopeArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every tool takes: where to look."""

    namespace: Annotated[str, Meta(description="Namespace to look in; empty: the server's.")] = ""
    all_namespaces: Annotated[bool, Meta(description="Look in all namespaces.")] = False
    since_minutes: Annotated[
        float,
        Meta(ge=0, le=44_640, description="What was recorded since so many minutes ago, in place of now; 0: now."),
    ] = 0.0
    until_minutes: Annotated[
        float, Meta(ge=0, le=44_640, description="With since_minutes: until so many minutes ago; 0: until now.")
    ] = 0.0


class NoArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that takes no argument."""


class DiagnoseArguments(ScopeArguments, frozen=True, kw_only=True):
    target: TargetText = ""
    from_pod: PodName = ""
    seconds: WatchSeconds = 15.0
    node: NodeName = ""


class TimelineArguments(ScopeArguments, frozen=True, kw_only=True):
    target: TargetText = ""


class TraceArguments(ScopeArguments, frozen=True, kw_only=True):
    target: TargetText = ""
    from_pod: PodName = ""
    seconds: WatchSeconds = 15.0
    node: NodeName = ""
    verdicts: Annotated[
        tuple[Literal["forwarded", "dropped", "rejected", "unanswered", "reset", "unknown"], ...],
        Meta(description="Only connections with one of these verdicts; empty: all."),
    ] = ()
    last: Annotated[int, Meta(ge=0, le=MAX_LAST, description="Only the last so many connections; 0: all.")] = 0


class DropsArguments(ScopeArguments, frozen=True, kw_only=True):
    target: TargetText = ""
    everything: Annotated[bool, Meta(description="Also frees that lost nothing.")] = False
    seconds: WatchSeconds = 15.0
    node: NodeName = ""


class DnsArguments(ScopeArguments, frozen=True, kw_only=True):
    target: TargetText = ""
    as_server: Annotated[bool, Meta(description="The target is a DNS server: who asks it.")] = False
    seconds: WatchSeconds = 15.0
    node: NodeName = ""


class ExplainArguments(ScopeArguments, frozen=True, kw_only=True):
    client: Annotated[
        str, Meta(min_length=1, description="pod/[NAMESPACE/]NAME, deploy/NAME, svc/NAME or an IP address.")
    ]
    destination: Annotated[
        str, Meta(min_length=1, description="As the client, with an optional :PORT; also a domain name.")
    ]
    protocol: Literal["", "TCP", "UDP", "SCTP"] = ""


class MatrixArguments(ScopeArguments, frozen=True, kw_only=True):
    port: Annotated[int, Meta(ge=0, le=65535, description="0: the ports that each destination declares.")] = 0
    protocol: Literal["", "TCP", "UDP", "SCTP"] = ""


class RulesArguments(ScopeArguments, frozen=True, kw_only=True):
    target: Annotated[str, Meta(description="svc/NAME[:PORT]; empty: every Service.")] = ""
    node: NodeName = ""
    connections: Annotated[bool, Meta(description="Also how many connections conntrack holds.")] = False


class FabricArguments(ScopeArguments, frozen=True, kw_only=True):
    target: Annotated[str, Meta(description="pod/[NAMESPACE/]NAME, job/NAME or node/NAME; empty: all GPU pods.")] = ""
    seconds: Annotated[float, Meta(ge=0.5, le=MAX_WATCH_S, description="How long to measure.")] = 5.0


class DoctorArguments(ScopeArguments, frozen=True, kw_only=True):
    only: Annotated[tuple[str, ...], Meta(description="Only these areas or checks; empty: all.")] = ()
    measure_seconds: Annotated[
        float, Meta(ge=0, le=MAX_WATCH_S, description="How long to watch the cluster's DNS; 0: not at all.")
    ] = 0.0


class StatusArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    agents_namespace: Annotated[str, Meta(description="Namespace of the agents; empty: where `deploy` puts them.")] = ""
