"""What the server hands to a worker, and what either says first."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec

from kubectl_genainet import __version__, wire
from kubectl_genainet.agent import clock
from kubectl_genainet.agent.bpf import kprobes
from kubectl_genainet.agent.record.options import RecordOptions
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.model.events import Hello
from kubectl_genainet.wire import TraceRequest

NAMESPACES_S = 2.0
FLUSH = b'"flush"'  # a line that has a recording session write what it has
END = b'"end"'  # a line that ends a session because its agent ends
ALIVE_S = 3.0  # between signs of life until the probes are loaded


class Job(msgspec.Struct, frozen=True):
    """What the server hands to a worker. `events_per_second` is of each probe and CPU; what is over is counted as lost."""

    request: TraceRequest
    node: str
    host_netns: str
    cache: str
    budget: Budget = Budget()
    namespaces_s: float = NAMESPACES_S  # how often the namespaces are looked at
    dns_over_tcp: bool = True
    session: str = ""  # its name in the agent's log
    greeted: bool = False  # the server has sent Hello already
    record: RecordOptions | None = None


def hello(node: str, probes: tuple[str, ...]) -> Hello:
    realtime_ns, t_ns = clock.now()
    return Hello(
        node=node,
        protocol=wire.PROTOCOL,
        version=__version__,
        kernel=platform.release(),
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        t_ns=t_ns,
        realtime_ns=realtime_ns,
        tier="kprobe" if kprobes.available() else "tracepoint",
        probes=probes,
    )
