"""The bounds that an agent puts on what a client may ask, whatever the client says."""

from __future__ import annotations

import msgspec

from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.packet import Protocol, parse_address
from kubectl_genainet.wire import MAX_TIMEOUT_S, CheckRequest, FilterEntry, Filters, TraceRequest

MAX_SESSIONS = 4
MAX_ADDRESSES = 200  # of one question for their connections
MAX_BODY = 4 << 20  # bytes of a request
MAX_FILTERS = 50_000
MAX_FILTER_KEYS = 65_536  # the kernel's table of filters (probes/include/genainet.h)
MAX_EVENTS = 10_000_000
MAX_BYTES = 8 << 30
MAX_CHECKS = 1000
MAX_CPU_PERCENT = 400.0  # of one core
MAX_OPTIONS = 16
MAX_OPTION = 256 << 10  # characters: the search domains of all namespaces


class Budget(msgspec.Struct, frozen=True):
    """What one session may take. What does not fit is lost, and counted.

    `ring_pages` (a power of two) are pages of the ring buffer, `events_per_second` holds for each CPU, `outbox_bytes`
    wait for a slow client.
    """

    ring_pages: int = 1024
    events_per_second: int = 20_000
    outbox_bytes: int = 16 << 20


_PROTOCOLS = {p.value.upper(): p.value.upper() for p in Protocol if p.number} | {"": ""}


def checked_filters(filters: tuple[FilterEntry, ...]) -> tuple[FilterEntry, ...]:
    """The filters in canonical spelling. Raises InputError for one that is none, and for too many."""
    if len(filters) > MAX_FILTERS:
        raise InputError(f"{len(filters)} filters are more than {MAX_FILTERS}", field="filters")
    entries = tuple(dict.fromkeys(_checked_filter(entry, f"filters[{i}]") for i, entry in enumerate(filters)))
    keys = sum(filter_keys(entry) for entry in entries)
    if keys > MAX_FILTER_KEYS:
        raise InputError(f"the filters have {keys} addresses by protocol, more than {MAX_FILTER_KEYS}", field="filters")
    return entries


def checked_changes(filters: Filters) -> Filters:
    """The filters of all probes, or of some, in canonical spelling. Raises InputError as `checked_filters` does."""
    return _checked_by_probe(filters) if isinstance(filters, dict) else checked_filters(filters)


def _checked_by_probe(filters: dict[str, tuple[FilterEntry, ...]]) -> dict[str, tuple[FilterEntry, ...]]:
    if unknown := [name[:64] for name in filters if name not in PROBES]:
        raise InputError(f"filters of unknown probes {unknown[:8]!r}", field="own_filters")
    return {name: checked_filters(own) for name, own in filters.items()}


def filter_keys(entry: FilterEntry) -> int:
    """How many entries of the kernel's table a filter takes: one a protocol, and those with ports have no ICMP."""
    return 1 if entry.protocol else 3 if entry.port else 5


def _checked_filter(entry: FilterEntry, where: str) -> FilterEntry:
    if not 0 <= entry.port <= 65535:
        raise InputError(f"{entry.port} is not a port", field=where)
    protocol = _PROTOCOLS.get(entry.protocol.upper())
    if protocol is None:
        raise InputError(f"{entry.protocol[:16]!r} is not a protocol", field=where)
    return FilterEntry(_address(entry.ip, where), entry.port, protocol)


def _address(text: str, where: str) -> str:
    try:
        return str(parse_address(text))
    except ValueError:
        raise InputError(f"{text[:64]!r} is not an IP address", field=where) from None


def check_rulesets_query(query: str) -> bool:
    """Whether connections are asked for: the query is empty or conntrack=0|1. Raises InputError for any other."""
    if query not in ("", "conntrack=0", "conntrack=1"):
        raise InputError(f"{query[:64]!r} is not conntrack=0 or conntrack=1", field="query")
    return query == "conntrack=1"


def checked_addresses(query: str) -> list[str]:
    """The addresses of a query at=IP,IP. Raises InputError for any other, and for too many."""
    name, _, value = query.partition("=")
    texts = value.split(",") if value else []
    if (query and name != "at") or len(texts) > MAX_ADDRESSES:
        raise InputError(f"{query[:64]!r} is not at= and at most {MAX_ADDRESSES} addresses", field="query")
    return [_address(text, "query") for text in texts]


def checked_request(request: TraceRequest) -> TraceRequest:
    """The request in canonical spelling. Raises InputError, naming the field, for one that is out of bounds."""
    filters = checked_filters(request.filters)
    unknown = [name[:64] for name in request.probes[:8] if name not in PROBES]
    if unknown or not (request.probes or request.exact):
        raise InputError(f"unknown probes {unknown!r}; this agent has {', '.join(PROBES)}", field="probes")
    if len(set(request.probes)) < len(request.probes):
        raise InputError("each probe is asked for once", field="probes")
    for field, value, most in (
        ("timeout_s", request.timeout_s, MAX_TIMEOUT_S),
        ("max_events", request.max_events, MAX_EVENTS),
        ("max_bytes", request.max_bytes, MAX_BYTES),
        ("cpu_percent", request.cpu_percent, MAX_CPU_PERCENT),
        ("events_per_second", request.events_per_second, MAX_EVENTS),
    ):
        if not 0 < value <= most:
            raise InputError(f"{value} is not between 0 and {most:g}", field=field)
    if len(request.options) > MAX_OPTIONS or any(len(k + v) > MAX_OPTION for k, v in request.options.items()):
        raise InputError(f"at most {MAX_OPTIONS} options of {MAX_OPTION} characters", field="options")
    key = request.options.get("redact", "")
    if any(c not in "0123456789abcdef" for c in key) or len(key) > 64 or len(key) % 2:
        raise InputError("a key to redact with is at most 32 bytes in hexadecimal", field="options.redact")
    check = _valid_check(request.check) if request.check is not None else None
    own_filters = _checked_by_probe(request.own_filters)
    return msgspec.structs.replace(request, filters=filters, own_filters=own_filters, check=check)


def _valid_check(check: CheckRequest) -> CheckRequest:
    from_ip, host = _address(check.from_ip, "probe.from_ip"), _address(check.host, "probe.host")
    if not 1 <= check.port <= 65535 or check.protocol != "TCP":
        raise InputError("a check connection is TCP, to a port from 1 to 65535", field="probe.port")
    if not 1 <= check.count <= MAX_CHECKS or not 0.01 <= check.interval_s <= 60:
        raise InputError(f"at most {MAX_CHECKS} check connections, 0.01 to 60 seconds apart", field="probe.count")
    if len(check.name) > 253 or not all(c.isascii() and (c.isalnum() or c in "-._") for c in check.name):
        raise InputError("a name is letters, digits, - and . in at most 253 characters", field="probe.name")
    plain = all("!" <= c <= "~" for c in check.path + check.host_header)
    if not plain or len(check.path) > 2048 or len(check.host_header) > 255:
        raise InputError("path and host are printable ASCII without spaces", field="probe.path")
    if check.path and not check.path.startswith("/"):
        raise InputError("the path starts with /", field="probe.path")
    return msgspec.structs.replace(check, from_ip=from_ip, host=host)
