"""How a trace is shown: a live tree in a terminal, plain text in a pipe, one line a path (wide), JSON or YAML."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from rich.console import RenderableType
from rich.text import Text

from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.results.path import OpenStream, PacketPath
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.render.live import LiveView
from kubectl_genainet.render.paragraphs import hanging
from kubectl_genainet.render.screen.frame import Frame, frame
from kubectl_genainet.render.table import Column
from kubectl_genainet.render.text import duration, moment
from kubectl_genainet.render.trace.blocks import block, blocks
from kubectl_genainet.render.trace.markdown import trace_markdown
from kubectl_genainet.render.trace.parts import VERDICT_STYLE
from kubectl_genainet.render.trace.streams import LIVE_SHOWN, LongStreams, open_lines
from kubectl_genainet.render.trace.summary import summary_block
from kubectl_genainet.render.trace.tree import path_tree
from kubectl_genainet.render.trace.wide import WIDE_COLUMNS, follow_line, wide_line
from kubectl_genainet.trace.shown.groups import Group, Grouping, service_name

# On a screen with keys.
GROUP_COLUMNS: tuple[Column[Group], ...] = (
    Column("VERDICT", lambda g: g.verdict.value, style=lambda g: VERDICT_STYLE[g.verdict]),
    Column("CONNS", lambda g: str(g.count), right=True),
    Column("CLIENT", lambda g: ", ".join(g.clients)),
    Column("SERVICE", lambda g: service_name(g.service), spare=3),
    Column("BACKEND", lambda g: g.backend or "-", spare=1),
    Column("CAUSE", lambda g: ", ".join(g.cause[:1]) or "-"),
    Column("RETRANS", lambda g: str(g.retransmits), right=True, spare=4),
    Column("RESPONSE P50", lambda g: duration(g.response.p50) if g.response.count else "-", right=True, spare=2),
    Column("LAST", lambda g: moment(g.last) or "-", spare=2),
)


class TraceView(LiveView, ABC):
    """What a renderer of traces does."""

    open_streams: Callable[[int], list[OpenStream]] = staticmethod(lambda _: [])

    @abstractmethod
    def path(self, path: PacketPath) -> None: ...

    @abstractmethod
    def finish(self, summary: TraceSummary) -> None: ...

    def _nothing_seen(self, summary: TraceSummary) -> None:
        if summary.connections or not summary.nodes:  # where no agent watched, its failure is what is said
            return
        counted = summary.counted.get("packets", 0)
        if summary.not_shown:
            self.warn(
                f"the filters (--verdict, --from, --from-pod, --to, -l) match none of the {summary.not_shown} connections "
                f"to {self.target} that were seen"
            )
        elif not self.live:
            self.warn(f"the bundle has no connection to {self.target} that began while it was recorded")
        else:
            hint = (
                f"{counted} packets of connections older than the trace were counted"
                if counted
                else "is there traffic? --check makes some, from the pod that --from-pod names"
            )
            self.warn(f"no new connection to {self.target} was seen; {hint}")


class JsonView(TraceView):
    """One object a line, as it is known; then the summary and the losses. Documented in docs/output.md."""

    as_known = True

    def path(self, path: PacketPath) -> None:
        self.write(path)

    def finish(self, summary: TraceSummary) -> None:
        self._nothing_seen(summary)
        self.write(summary)
        for loss in summary.lost:
            self.write(loss)


class WideView(TraceView):
    """One line a path."""

    as_known = True

    def __init__(self, target: str, *, live: bool) -> None:
        super().__init__(target, live=live)
        self._started = False

    def path(self, path: PacketPath) -> None:
        if not self._started:
            self._started = True
            self.console.print(wide_line([c.title for c in WIDE_COLUMNS]), soft_wrap=True)
        self.console.print(wide_line([c.cell(path) for c in WIDE_COLUMNS]), soft_wrap=True)

    def finish(self, summary: TraceSummary) -> None:
        self._nothing_seen(summary)
        self.console.print(summary_block(summary, self.console.width, most=len(summary.backends)))


class FollowView(TraceView):
    """One short line a connection, as it is known; in a narrow terminal it goes on below, indented."""

    as_known = True

    def path(self, path: PacketPath) -> None:
        line = follow_line(path)
        for part in hanging(line, self.console.width, hang=2) if self.console.is_terminal else (line,):
            self.console.print(part, soft_wrap=True)

    def finish(self, summary: TraceSummary) -> None:
        self._nothing_seen(summary)
        self.console.print(summary_block(summary, self.console.width))


class EachView(TraceView):
    """A tree for every connection, as it is known."""

    as_known = True

    def path(self, path: PacketPath) -> None:
        self.console.print(path_tree(path, 1, self.console.width))

    def finish(self, summary: TraceSummary) -> None:
        self._nothing_seen(summary)
        self.console.print(summary_block(summary, self.console.width))


class GroupView(TraceView):
    """A block for all connections of the same workloads with the same outcome and cause: drawn live in a terminal, and
    printed at the end."""

    in_place = True

    def __init__(self, target: str, *, live: bool) -> None:
        super().__init__(target, live=live)
        self.grouping = Grouping()
        self._streams = LongStreams()

    def path(self, path: PacketPath) -> None:
        self.grouping.add(path)
        self._streams.add(path)

    def counts(self) -> tuple[str, ...]:
        return (counted(self.grouping.connections, "connection"),)

    def frame(self) -> Frame:
        total = self.grouping.connections
        rows = [(repr(group.key), group, partial(block, group, total, hops=True)) for group in self.grouping.copies()]
        streams = open_lines(self.open_streams(LIVE_SHOWN))
        below = Text("\n").join((*streams, self.state()))
        return frame(GROUP_COLUMNS, rows, below, kept=("VERDICT", "CONNS", "CAUSE"))

    def drawn(self) -> list[RenderableType]:
        shown: list[RenderableType] = []
        streams = open_lines(self.open_streams(LIVE_SHOWN))
        groups = self.grouping.groups
        room = self.console.height - 3 - sum(len(self.console.render_lines(line)) for line in streams)
        for shown_block in blocks(groups, self.grouping.connections, self.console.width):
            room -= len(self.console.render_lines(shown_block))
            if room < 0:
                shown.append(Text("… and more; what went wrong comes first", style="dim"))
                break
            shown.append(shown_block)
        return [*shown, *streams, self.state()]

    def finish(self, summary: TraceSummary) -> None:
        self.screen.stop()
        groups = self.grouping.groups
        for shown_block in blocks(groups, self.grouping.connections, self.console.width):
            self.console.print(shown_block)
        for text in self._streams.lines():
            for part in hanging(text, self.console.width, hang=2):
                self.console.print(part)
        self._nothing_seen(summary)
        shown = frozenset(f.check for g in groups for f in g.example.findings)
        self.console.print(summary_block(summary, self.console.width, shown=shown))


class MarkdownView(GroupView):
    """The blocks and the backends as a document, at the end."""

    in_place = False

    def finish(self, summary: TraceSummary) -> None:
        self._nothing_seen(summary)
        print("\n".join(trace_markdown(self.grouping.groups, self.grouping.connections, summary)))


OUTPUTS: dict[str, Callable[..., TraceView]] = {
    "tree": GroupView,
    "wide": WideView,
    "markdown": MarkdownView,
    "json": JsonView,
}
VIEWS = {**OUTPUTS, "each": EachView, "follow": FollowView}  # the last two by options of their own
