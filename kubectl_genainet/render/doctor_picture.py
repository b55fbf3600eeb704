"""The cluster's picture as inline SVG: boxes in layers from left to right, arrows between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_genainet.doctor.picture import Arrow, Box, BoxKind, Picture
from kubectl_genainet.model.finding import Certainty

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 62, 120, 26, 12
_CHARS = 24


@dataclass(frozen=True, slots=True)
class Placed:
    """A box with the position of its upper left corner, in SVG units."""

    box: Box
    x: int
    y: int

    @property
    def title(self) -> str:
        return _cut(self.box.title, _CHARS)

    @property
    def subtitle(self) -> str:
        return _cut(self.box.subtitle, _CHARS + 6)

    @property
    def css(self) -> str:
        severity = self.box.severity.value if self.box.severity else "none"
        return f"box {self.box.kind.value} sev-{severity}"

    @property
    def failing(self) -> str:
        names = self.box.failing
        if not names:
            return ""
        more = f" +{len(names) - 1}" if len(names) > 1 else ""
        return _cut(names[0], _CHARS + 4 - len(more)) + more

    @property
    def tooltip(self) -> str:
        about = str(self.box.object) if self.box.object else self.box.title
        return f"{about} ({self.box.subtitle})" + (f": {', '.join(self.box.failing)}" if self.box.failing else "")


@dataclass(frozen=True, slots=True)
class Drawn:
    """An arrow as an SVG path, with its label's place."""

    arrow: Arrow
    path: str
    x: float
    y: float

    @property
    def css(self) -> str:
        return "arrow observed" if self.arrow.certainty is Certainty.OBSERVED else f"arrow {self.arrow.certainty.value}"

    @property
    def label(self) -> str:
        return _cut(self.arrow.label, 20)


@dataclass(frozen=True, slots=True)
class Layout:
    """A picture with every position decided."""

    boxes: tuple[Placed, ...]
    arrows: tuple[Drawn, ...]
    width: int
    height: int


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def layout(picture: Picture) -> Layout:
    """Places boxes in layers (callers left of callees) and draws arrows between them."""
    layers = _layers(picture)
    columns: dict[int, list[Box]] = defaultdict(list)
    for box in picture.boxes:
        columns[layers[box.id]].append(box)
    _untangle(columns, picture.arrows)
    rows = max((len(c) for c in columns.values()), default=0)
    height = 2 * MARGIN + rows * (HEIGHT + GAP_Y) - (GAP_Y if rows else 0)
    placed: dict[str, Placed] = {}
    for position, layer in enumerate(sorted(columns)):
        column = columns[layer]
        used = len(column) * (HEIGHT + GAP_Y) - GAP_Y
        top = (height - used) // 2
        for row, box in enumerate(column):
            placed[box.id] = Placed(box, MARGIN + position * (WIDTH + GAP_X), top + row * (HEIGHT + GAP_Y))
    width = 2 * MARGIN + len(columns) * (WIDTH + GAP_X) - (GAP_X if columns else 0)
    return Layout(
        tuple(placed[b.id] for b in picture.boxes),
        tuple(_draw(a, placed[a.source], placed[a.target]) for a in picture.arrows),
        max(width, 2 * MARGIN),
        height,
    )


def _layers(picture: Picture) -> dict[str, int]:
    """The layer of each box: one more than the deepest of its callers; a cycle is cut where it is met again."""
    callees: dict[str, list[str]] = defaultdict(list)
    for arrow in picture.arrows:
        callees[arrow.source].append(arrow.target)
    order: list[str] = []
    state: dict[str, int] = {}
    back: set[tuple[str, str]] = set()
    for root in (b.id for b in picture.boxes):
        stack = [(root, 0)] if root not in state else []
        while stack:
            node, index = stack.pop()
            state[node] = 1
            below = callees[node]
            if index < len(below):
                stack.append((node, index + 1))
                child = below[index]
                if state.get(child) == 1:
                    back.add((node, child))
                elif child not in state:
                    stack.append((child, 0))
            else:
                state[node] = 2
                order.append(node)
    layers = {b.id: 0 for b in picture.boxes}
    for node in reversed(order):
        for child in callees[node]:
            if (node, child) not in back:
                layers[child] = max(layers[child], layers[node] + 1)
    return layers


def _untangle(columns: dict[int, list[Box]], arrows: Sequence[Arrow]) -> None:
    """Orders each column by the mean row of its neighbours, a few times, so that arrows cross less."""
    near: dict[str, list[str]] = defaultdict(list)
    for arrow in arrows:
        near[arrow.source].append(arrow.target)
        near[arrow.target].append(arrow.source)
    for column in columns.values():
        column.sort(key=lambda b: (list(BoxKind).index(b.kind), b.id))
    for _ in range(4):
        row = {b.id: i / max(1, len(c) - 1) for c in columns.values() for i, b in enumerate(c)}
        for column in columns.values():
            column.sort(
                key=lambda b: (sum(row[n] for n in near[b.id]) / len(near[b.id]) if near[b.id] else row[b.id], b.id)
            )


def _draw(arrow: Arrow, source: Placed, target: Placed) -> Drawn:
    forward = target.x > source.x
    x1, y1 = source.x + (WIDTH if forward else 0), source.y + HEIGHT / 2
    x2, y2 = target.x - (7 if forward else -WIDTH - 7), target.y + HEIGHT / 2
    bend = max(40.0, abs(x2 - x1) / 2) * (1 if forward else -1)
    path = f"M{x1:.0f},{y1:.0f} C{x1 + bend:.0f},{y1:.0f} {x2 - bend:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
    # Beside the source where the arrow is long, so that the label is not hidden under the boxes between.
    near = x1 + (GAP_X / 2 if forward else -GAP_X / 2)
    share = 0.5 if abs(x2 - x1) <= GAP_X else min(0.35, GAP_X / 2 / max(1.0, abs(x2 - x1)))
    return Drawn(arrow, path, near, y1 + (y2 - y1) * _ease(share) - 5)


def _ease(t: float) -> float:
    """The vertical share of a horizontal S-curve at parameter t."""
    return 3 * t * t - 2 * t * t * t
