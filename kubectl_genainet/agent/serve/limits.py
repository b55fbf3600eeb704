"""The bounds that an agent puts on what a client may ask, whatever the client says."""

from __future__ import annotations

import ipaddress

import msgspec

from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.errors import InputError
from kubectl_genainet.wire import FilterEntry, ProbeRequest, TraceRequest

MAX_SESSIONS = 4
MAX_BODY = 4 << 20  # bytes of a request
MAX_FILTERS = 50_000
MAX_TIMEOUT_S = 3600.0
MAX_EVENTS = 10_000_000
MAX_BYTES = 8 << 30
MAX_PROBES = 1000


class Budget(msgspec.Struct, frozen=True):
    """What one session may take. What does not fit is lost, and counted.

    `ring_pages` (a power of two) are pages of the ring buffer, `events_per_second` holds for each CPU, `outbox_bytes`
    wait for a slow client.
    """

    ring_pages: int = 1024
    events_per_second: int = 20_000
    outbox_bytes: int = 16 << 20


_PROTOCOLS = {"", "TCP", "UDP", "SCTP", "ICMP", "ICMPV6"}


def check_filters(filters: tuple[FilterEntry, ...]) -> None:
    """Raises InputError for a filter that is none, or for too many."""
    if len(filters) > MAX_FILTERS:
        raise InputError(f"{len(filters)} filters are more than {MAX_FILTERS}", field="filters")
    for i, entry in enumerate(filters):
        where = f"filters[{i}]"
        try:
            ipaddress.ip_address(entry.ip)
        except ValueError:
            raise InputError(f"{entry.ip[:64]!r} is not an IP address", field=where) from None
        if not 0 <= entry.port <= 65535:
            raise InputError(f"{entry.port} is not a port", field=where)
        if entry.protocol.upper() not in _PROTOCOLS:
            raise InputError(f"{entry.protocol[:16]!r} is not a protocol", field=where)


def check_rulesets_query(query: str) -> bool:
    """Whether connections are asked for: the query is empty or conntrack=0|1. Raises InputError for any other."""
    if query not in ("", "conntrack=0", "conntrack=1"):
        raise InputError(f"{query[:64]!r} is not conntrack=0 or conntrack=1", field="query")
    return query == "conntrack=1"


def check_request(request: TraceRequest) -> None:
    """Raises InputError, naming the field, for a request that is out of bounds."""
    check_filters(request.filters)
    unknown = [name for name in request.probes if name not in PROBES]
    if unknown or not (request.probes or request.exact):
        raise InputError(f"unknown probes {unknown!r}; this agent has {', '.join(PROBES)}", field="probes")
    for field, value, most in (
        ("timeout_s", request.timeout_s, MAX_TIMEOUT_S),
        ("max_events", request.max_events, MAX_EVENTS),
        ("max_bytes", request.max_bytes, MAX_BYTES),
    ):
        if not 0 < value <= most:
            raise InputError(f"{value} is not between 0 and {most:g}", field=field)
    if request.probe is not None:
        _check_probe(request.probe)
    key = request.options.get("redact", "")
    if any(c not in "0123456789abcdef" for c in key) or len(key) > 64 or len(key) % 2:
        raise InputError("a key to redact with is at most 32 bytes in hexadecimal", field="options.redact")


def _check_probe(probe: ProbeRequest) -> None:
    for field, ip in (("probe.from_ip", probe.from_ip), ("probe.host", probe.host)):
        try:
            ipaddress.ip_address(ip)
        except ValueError:
            raise InputError(f"{ip[:64]!r} is not an IP address", field=field) from None
    if not 1 <= probe.port <= 65535 or probe.protocol != "TCP":
        raise InputError("a probe opens TCP connections to a port from 1 to 65535", field="probe.port")
    if not 1 <= probe.count <= MAX_PROBES or not 0.01 <= probe.interval_s <= 60:
        raise InputError(f"at most {MAX_PROBES} probes, 0.01 to 60 seconds apart", field="probe.count")
    bad = [c for c in probe.path + probe.host_header if not c.isprintable() or c.isspace()]
    if bad or len(probe.path) > 2048 or len(probe.host_header) > 255 or (probe.path and not probe.path.startswith("/")):
        raise InputError(
            "the path starts with / and, as the host, has no spaces or control characters", field="probe.path"
        )
