"""How a trace is shown: a live tree in a terminal, plain text in a pipe, one line a path (wide), JSON or YAML."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from rich.console import RenderableType
from rich.text import Text

from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.results.path import PacketPath, Verdict
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.render.live import LiveView, write_json, write_yaml
from kubectl_genainet.render.trace.tree import path_tree, summary_block
from kubectl_genainet.render.trace.wide import WIDE_COLUMNS, wide_line

REFRESH_S = 0.25  # drawing takes long beside what a record takes
GroupKey = tuple[object, ...]


def group_of(path: PacketPath) -> GroupKey:
    """Paths with the same ends, chain and fate are shown once, with their number."""
    client, backend, drop = path.flow.client, path.backend, path.drop
    return (
        client.namespace,
        client.pod or client.ip,
        path.flow.service,
        backend.ip if backend else None,
        backend.port if backend else None,
        path.verdict,
        drop.reason if drop else None,
        drop.hook if drop else None,
    )


class TraceView(LiveView, ABC):
    """What a renderer of traces does."""

    @abstractmethod
    def path(self, path: PacketPath) -> None: ...

    @abstractmethod
    def finish(self, summary: TraceSummary) -> None: ...

    def _nothing_seen(self, summary: TraceSummary) -> None:
        if not summary.connections:
            counted = summary.counted.get("packets", 0)
            hint = (
                f"{counted} packets of connections older than the trace were counted"
                if counted
                else "is there traffic? --probe makes some: --from-pod pod/NAME --probe"
            )
            self.warn(f"no new connection to {self.target} was seen; {hint}")


class JsonView(TraceView):
    """One object a line, as it is known; then the summary and the losses. Documented in docs/output.md."""

    write: Callable[[object], None] = staticmethod(write_json)

    def path(self, path: PacketPath) -> None:
        self.write(path)

    def finish(self, summary: TraceSummary) -> None:
        self._nothing_seen(summary)
        self.write(summary)
        for loss in summary.lost:
            self.write(loss)


class YamlView(JsonView):
    write = staticmethod(write_yaml)


class WideView(TraceView):
    """One line a path."""

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
        self.console.print(summary_block(summary, self.console.width))


class TreeView(TraceView):
    """The tree: live in a terminal, else each new kind of path once and the summary at the end."""

    in_place = True

    def __init__(self, target: str, *, live: bool) -> None:
        super().__init__(target, live=live)
        self._groups: dict[GroupKey, tuple[PacketPath, int]] = {}

    def path(self, path: PacketPath) -> None:
        key = group_of(path)
        old = self._groups.get(key)
        self._groups[key] = (old[0] if old else path, (old[1] if old else 0) + 1)
        if old is None and not self.screen.on and self.live:
            self.console.print(path_tree(path, 1, self.console.width))

    def refresh(self) -> None:
        if self.screen.due(REFRESH_S):
            self.screen.draw(self._render_live())

    def _ordered(self) -> list[tuple[PacketPath, int]]:
        """What went wrong first, then the most frequent."""
        return sorted(self._groups.values(), key=lambda g: (g[0].verdict is Verdict.FORWARDED, -g[1]))

    def _render_live(self) -> list[RenderableType]:
        shown: list[RenderableType] = []
        room = self.console.height - 3
        groups = self._ordered()
        for number, (path, count) in enumerate(groups):
            tree = path_tree(path, count, self.console.width)
            lines = len(self.console.render_lines(tree))
            if lines > room:
                shown.append(Text(f"… and {len(groups) - number} more kinds of path", style="dim"))
                break
            room -= lines
            shown.append(tree)
        return [*shown, self.state(counted(sum(n for _, n in groups), "connection"))]

    def finish(self, summary: TraceSummary) -> None:
        drawn = self.screen.on
        self.screen.stop()
        if drawn or not self.live:
            for path, count in self._ordered():
                self.console.print(path_tree(path, count, self.console.width))
        self._nothing_seen(summary)
        self.console.print(summary_block(summary, self.console.width))


VIEWS: dict[str, Callable[..., TraceView]] = {"tree": TreeView, "wide": WideView, "json": JsonView, "yaml": YamlView}


def make_view(output: str, target: str, *, live: bool) -> TraceView:
    return VIEWS[output](target, live=live)
