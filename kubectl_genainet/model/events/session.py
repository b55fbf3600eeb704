"""How a session goes: who watches, from when, what was lost, and why it ended."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.packet import ALL_KEPT
from kubectl_genainet.model.units import Nanoseconds


class LostEvents(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="lost"):
    """Events of a probe that did not reach the reader since the last such record, and where they were lost."""

    node: str
    probe: str
    count: int
    where: str  # "ring buffer", "event budget", "agent queue", "slow client"


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="hello"):
    """The first record of a stream. `realtime_ns` - `t_ns` turns the node's monotonic times into wall-clock times.

    `boot_id` names the running kernel: nodes with the same one share a clock and sk_buff addresses.
    """

    node: str
    protocol: int
    version: str
    kernel: str
    boot_id: str
    t_ns: Nanoseconds
    realtime_ns: Nanoseconds
    tier: str  # "tracepoint", "kprobe", "exact"
    probes: tuple[str, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="progress"):
    """What the agent is doing: stage "loading", "compiling" (a probe for this kernel, once: tens of seconds on a slow
    node), "attached", "missing" (a feature that this kernel lacks), "busy" (it has had no time to say anything), "detached".

    The probes look at packets from the `t_ns` of "attached" until that of "detached"; 0 with other stages.
    """

    node: str
    stage: str
    detail: str = ""
    t_ns: Nanoseconds = 0


class Sampled(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="sampled"):
    """The agent keeps within its budget: it follows `kept` in ALL_KEPT connections, the same as other nodes with that number
    (`followed`). In force since the last Tick at the latest. Older agents said one in 2**level."""

    node: str
    t_ns: Nanoseconds
    level: int = 0
    kept: int | None = None

    @property
    def share(self) -> int:
        """How many in ALL_KEPT."""
        return ALL_KEPT >> self.level if self.kept is None else self.kept


class Tick(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="tick"):
    """The agent is alive and has sent all that it saw until `t_ns`, and what it counted until `counted_ns` (0: not said).
    Once a second; a reader's clock.

    Where the session has a budget: `cpu_ns` is the CPU time of the agent's processes since it began to watch, `kernel_ns`
    that of its BPF programs (None where the kernel does not tell), `budget` what it may take, in per cent of a core.
    """

    node: str
    t_ns: Nanoseconds
    counted_ns: Nanoseconds = 0
    cpu_ns: Nanoseconds | None = None
    kernel_ns: Nanoseconds | None = None
    budget: float | None = None


class NameLookup(msgspec.Struct, frozen=True):
    """What a name resolved to, looked up as the pod's resolver does: by its resolv.conf(5), before a check connection.

    `outcome` is "answered", "no address", "timeout", a response code ("NXDOMAIN") or an error; `asked` the name that was asked
    for last, `server` whom. `took_ns` is of all `queries` together.
    """

    name: str
    outcome: str
    asked: str = ""
    server: str = ""
    addresses: tuple[str, ...] = ()
    queries: int = 0
    took_ns: Nanoseconds = 0


class CheckConnectionResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="probe_result"):
    """The outcome of one connection that the agent opened (`--check`). Times in ns, None where not reached."""

    node: str
    pod: str
    url: str
    outcome: str  # "connected", "refused", "timeout", "unreachable", "http 200", …
    connect_ns: Nanoseconds | None = None
    total_ns: Nanoseconds | None = None
    lookup: NameLookup | None = None  # None where no name was asked for


class AgentFailed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="failed"):
    """The agent could not go on, or could not start: what is wrong and what to do."""

    node: str
    message: str
    hint: str = ""


class ClusterChanged(msgspec.Struct, frozen=True, kw_only=True, dict=True, tag_field="kind", tag="cluster"):
    """The API's objects changed while a trace ran: all of them, as they are now. Written by the client, not an agent."""

    objects: list[dict[str, Any]]
    left_out: tuple[LeftOut, ...] = ()
    taken_at: str = ""

    @classmethod
    def of(cls, snapshot: ClusterSnapshot) -> ClusterChanged:
        raws = [o.raw for o in snapshot.objects]
        changed = cls(objects=raws, left_out=snapshot.left_out, taken_at=snapshot.taken_at)
        vars(changed)["snapshot"] = snapshot  # with what is decoded of it already
        return changed

    @cached_property
    def snapshot(self) -> ClusterSnapshot:
        return ClusterSnapshot(tuple(KubeObject(raw) for raw in self.objects), self.left_out, self.taken_at)


class Bye(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="bye"):
    """The last record of a stream. `emitted` counts what the probes tried to report: emitted = sent + lost."""

    node: str
    emitted: int
    sent: int
    lost: int
    reason: str  # "timeout", "client went away", "stopped" (by the client), "limit", "agent stopped", "failed"

    def why_early(self, *, asked: bool) -> str:
        """Why the trace ended before its time; "" where it did not. `asked`: its client has said that it is to end."""
        match self.reason:
            case "limit":
                return "the trace ended early, at its limit of records"
            case "agent stopped":
                return "the trace ended early, because its agent was stopped"
            case "stopped" | "client went away" if not asked:
                return "the trace ended early, because something on the node ended its process"
            case _:
                return ""
