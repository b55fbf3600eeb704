"""Every field of what a client may ask of an agent has a bound: a new one without a bound fails here."""

from __future__ import annotations

import asyncio
import math
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.serve import memory, server
from kubectl_genainet.agent.serve.history import checked_history
from kubectl_genainet.agent.serve.http import HttpError
from kubectl_genainet.agent.serve.limits import MAX_SESSIONS, check_rulesets_query, checked_request
from kubectl_genainet.agent.serve.server import AnyCaller, Running, Server
from kubectl_genainet.agent.serve.slots import ConnectionSlots
from kubectl_genainet.errors import InputError
from kubectl_genainet.wire import CheckRequest, FilterEntry, HistoryRequest, TraceRequest

FILTER = FilterEntry("10.0.0.1", 80, "TCP")
TRACE = TraceRequest(filters=(FILTER,), own_filters={"packet": (FILTER,)}, options={"search": "a.example"})
CHECK = CheckRequest("10.0.0.1", "10.0.0.2", 80, "TCP", "/v1", "host", 1, 1.0, "name.example")
HISTORY = HistoryRequest(since_ns=1, until_ns=2, parts=("dns",), addresses=("10.0.0.1",))
MANY = 1_000_000


def checked(value: Any) -> Any:
    match value:
        case FilterEntry():
            return checked_request(msgspec.structs.replace(TRACE, filters=(value,)))
        case CheckRequest():
            return checked_request(msgspec.structs.replace(TRACE, check=value))
        case HistoryRequest():
            return checked_history(value)
    return checked_request(value)


def too_much(kind: Any, good: Any) -> Iterator[Any]:
    """Values of a type that no request should have."""
    if kind is int:
        yield from (-1, 1 << 62)
    elif kind is float:
        yield from (-1.0, math.inf, math.nan, 1e18)
    elif kind is str:
        yield "x" * MANY
    elif isinstance(good, tuple):
        yield good[:1] * MANY
    elif isinstance(good, dict):
        yield {str(n): value for value in good.values() for n in range(MANY)}
        yield from ({key: value} for key, one in good.items() for value in too_much(type(one), one))
    else:
        assert kind in (bool, CheckRequest | None), f"how much is too much of {kind}?"


BEYOND = [
    pytest.param(good, field.name, value, id=f"{type(good).__name__}.{field.name}-{number}")
    for good in (TRACE, FILTER, CHECK, HISTORY)
    for field in msgspec.structs.fields(good)
    for number, value in enumerate(
        too_much(typing.get_type_hints(type(good))[field.name], getattr(good, field.name)),
    )
]


@pytest.mark.parametrize("good", [TRACE, FILTER, CHECK, HISTORY])
def test_what_is_within_bounds_goes_on(good: Any) -> None:
    assert checked(good)


@pytest.mark.parametrize(("good", "field", "value"), BEYOND)
def test_every_field_of_a_request_has_a_bound(good: Any, field: str, value: Any) -> None:
    with pytest.raises(InputError) as refused:
        checked(msgspec.structs.replace(good, **{field: value}))
    assert len(refused.value.message) < 2000


def test_addresses_of_a_question_about_a_recording_go_on_in_canonical_spelling() -> None:
    asked = msgspec.structs.replace(HISTORY, addresses=("FD00:0::01", "::ffff:10.0.0.1"))
    assert checked_history(asked).addresses == ("fd00::1", "10.0.0.1")
    for evil in ("fe80::1%\n{}", "10.0.0.1/8"):
        with pytest.raises(InputError, match="is not an IP address"):
            checked_history(msgspec.structs.replace(HISTORY, addresses=(evil,)))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("until_ns", 2 + 31 * 24 * 3600 * 10**9, "at most 31 days"),
        ("parts", ("dns", "everything"), "unknown parts"),
        ("parts", ("dns", "dns"), "asked for once"),
    ],
)
def test_a_question_about_a_recording_is_of_known_parts_and_a_month(field: str, value: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        checked_history(msgspec.structs.replace(HISTORY, **{field: value}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probes": ()}, "unknown probes"),
        ({"options": {"redact": "zz"}}, "hexadecimal"),
        ({"options": {"redact": "abc"}}, "hexadecimal"),
        ({"check": msgspec.structs.replace(CHECK, name="a\nb")}, "a name is"),
        ({"check": msgspec.structs.replace(CHECK, host_header="a b")}, "printable ASCII"),
        ({"check": msgspec.structs.replace(CHECK, path="/a\r\nX: y")}, "printable ASCII"),
        ({"own_filters": {"packet": (FilterEntry("10.0.0.1 "),)}}, "is not an IP address"),
        ({"own_filters": {"none": ()}}, "unknown probes"),
    ],
)
def test_what_a_trace_can_not_mean_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        checked_request(msgspec.structs.replace(TRACE, **changes))


def test_a_trace_goes_on_in_canonical_spelling() -> None:
    spelled, canonical = FilterEntry("FD00:0::01", 80, "tcp"), FilterEntry("fd00::1", 80, "TCP")
    check = msgspec.structs.replace(CHECK, from_ip="FD00:0::01", host="FD00::2")
    asked = msgspec.structs.replace(TRACE, filters=(spelled,), own_filters={"packet": (spelled,)}, check=check)
    found = checked_request(asked)
    assert (found.filters, found.own_filters) == ((canonical,), {"packet": (canonical,)})
    assert found.check is not None and (found.check.from_ip, found.check.host) == ("fd00::1", "fd00::2")


def test_a_question_for_rules_is_one_of_three() -> None:
    assert [check_rulesets_query(query) for query in ("", "conntrack=0", "conntrack=1")] == [False, False, True]
    for other in ("conntrack=2", "conntrack=1&x", "x"):
        with pytest.raises(InputError, match="is not conntrack"):
            check_rulesets_query(other)


def test_a_probe_of_which_nothing_was_measured_takes_as_much_as_the_largest() -> None:
    assert memory.cost_mib(["new"]) == max(memory.cost_mib([name]) for name in EVERYTHING)


EVERYTHING = ("packet", "connections", "drops", "dns")


def serving(cache: str, running: tuple[str, ...], sessions: int, memory_mib: int | None) -> Server:
    """An agent's server whose sessions have these probes."""
    found = Server(Inventory("node-1", "/proc/self/ns/net"), cache, AnyCaller(), memory_mib=memory_mib)
    request = msgspec.structs.replace(TRACE, probes=running)
    nothing: Any = None
    found.sessions = {str(n): Running(nothing, request, nothing) for n in range(sessions)}
    return found


def test_a_session_for_which_there_is_no_place_or_memory_is_refused(tmp_path: Any) -> None:
    wanted = msgspec.structs.replace(TRACE, probes=EVERYTHING)
    serving(str(tmp_path), ("packet",), MAX_SESSIONS - 1, None)._check_room(wanted)
    with pytest.raises(HttpError, match="4 traces run on this node already"):
        serving(str(tmp_path), ("packet",), MAX_SESSIONS, None)._check_room(wanted)
    with pytest.raises(HttpError, match="memory for no other"):
        serving(str(tmp_path), EVERYTHING, 1, 400)._check_room(wanted)
    always = serving(str(tmp_path), EVERYTHING, 0, 400)
    always._check_room(wanted)
    always.always_on = EVERYTHING
    with pytest.raises(HttpError, match="memory for no other"):
        always._check_room(wanted)


def test_callers_with_a_token_leave_places_to_the_health_check() -> None:
    async def connections() -> list[str]:
        slots, said = ConnectionSlots(4, 2), []

        async def one() -> None:
            slots.enter()
            try:
                slots.known()
                await asyncio.sleep(0.05)
                said.append("served")
            except HttpError as error:
                said.append(str(error))
            finally:
                slots.leave()

        await asyncio.gather(*(one() for _ in range(3)))
        return said

    assert asyncio.run(connections()) == ["too many requests at a time", "served", "served"]


def test_so_many_bodies_are_read_at_a_time(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_BODIES", 2)
    at_once: list[int] = []

    class Slow:
        reading = 0

        async def body(self) -> bytes:
            Slow.reading += 1
            at_once.append(Slow.reading)
            await asyncio.sleep(0.02)
            Slow.reading -= 1
            return b"{}"

    async def bodies() -> None:
        found = serving(str(tmp_path), (), 0, None)
        await asyncio.gather(*(found._body(Slow(), dict) for _ in range(6)))  # type: ignore[arg-type]

    asyncio.run(bodies())
    assert max(at_once) == 2 and len(at_once) == 6
