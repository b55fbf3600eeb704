"""A diagnosis as one page for the ticket: causes with the way of a connection, a timeline, the evidence, the commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kubectl_genainet import __version__
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.diagnosis import Cause, Conclusion
from kubectl_genainet.model.results.path import PacketPath, Party
from kubectl_genainet.render.diagnose.text import STATE_WORDS, headline, who
from kubectl_genainet.render.page import asset, environment, source_hash
from kubectl_genainet.render.text import duration

_WIDTH, _HEIGHT = 600, 50  # of the timeline, in the units of its viewBox


@dataclass(frozen=True, slots=True)
class Step:
    """A box of the way: client, Service, rule, backend, end."""

    kind: str
    name: str
    detail: str = ""
    css: str = ""


@dataclass(frozen=True, slots=True)
class HopRow:
    place: str
    device: str
    point: str
    after: str
    to: str


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    second: int
    count: int


@dataclass(frozen=True, slots=True)
class Card:
    """A cause, ready to be drawn."""

    cause: Cause
    who: str
    way: tuple[Step, ...]
    hops: tuple[HopRow, ...]
    bars: tuple[Bar, ...]
    last_second: int
    timeline_label: str


def html(conclusion: Conclusion, made: str = "") -> str:
    """The page; `made` is the time of the end of the watch, RFC 3339. Styles are inline, named by hash in its policy."""
    style = asset("report.css")
    return (
        environment()
        .get_template("diagnose.html.j2")
        .render(
            conclusion=conclusion,
            headline=headline(conclusion),
            cards=[_card(cause, conclusion.seconds) for cause in conclusion.causes],
            words=STATE_WORDS,
            made=made,
            version=__version__,
            style=style,
            style_hash=source_hash(style),
        )
    )


def _card(cause: Cause, seconds: float) -> Card:
    path = cause.example
    last = max([int(seconds), *cause.timeline])
    total = sum(cause.timeline.values())
    label = f"{total} failed connections over {last} seconds, at most {max(cause.timeline.values(), default=0)} in one"
    return Card(
        cause,
        who(cause),
        tuple(_way(path)) if path is not None else (),
        tuple(_hops(path)) if path is not None else (),
        tuple(_bars(cause.timeline, last)),
        last,
        label,
    )


def _way(path: PacketPath) -> Iterator[Step]:
    client, service = path.flow.client, path.flow.service
    yield Step("client", client.pod or client.ip, _on(client))
    if service is not None:
        yield Step("Service", f"{service.namespace}/{service.name}", address_text(service.ip, service.port))
    if path.nat is not None:
        chains = " → ".join(c for c in (path.nat.service_chain, path.nat.endpoint_chain) if c)
        yield Step("rule", chains or path.nat.mode, path.nat.certainty.value)
    if path.backend is not None:
        yield Step("backend", path.backend.pod or path.backend.ip, _on(path.backend))
    drop = path.drop
    if drop is not None:
        where = drop.pod or f"node {drop.node}"
        hook = f" in {drop.hook}" if drop.hook else ""
        yield Step(path.verdict.value, f"{drop.reason}{hook}", f"on {where}", "end-bad")
    else:
        yield Step("verdict", path.verdict.value, path.findings[0].title if path.findings else "", "end-good")


def _on(party: Party) -> str:
    return f"on {party.node}" if party.node else address_text(party.ip, party.port)


def _hops(path: PacketPath) -> Iterator[HopRow]:
    before: int | None = None
    for hop in path.hops:
        after = "" if before is None or hop.t_error_ns is None else f"+{duration(hop.t_ns - before)}"
        yield HopRow(hop.pod or hop.node, hop.device, hop.point, after, hop.dst)
        before = hop.t_ns if hop.t_error_ns is not None else None


def _bars(timeline: Mapping[int, int], last: int) -> Iterator[Bar]:
    step = _WIDTH / (last + 1)
    most = max(timeline.values(), default=1)
    for second, count in timeline.items():
        height = round(_HEIGHT * count / most, 1)
        yield Bar(round(second * step, 1), 5 + _HEIGHT - height, round(step * 0.8, 1), height, second, count)
