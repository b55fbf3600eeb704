"""The cluster's picture as inline SVG: boxes in layers from left to right, arrows between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubectl_genainet.doctor.picture import Arrow, Box, BoxKind, Picture
from kubectl_genainet.model.finding import Certainty

WIDTH, HEIGHT, GAP_X, GAP_Y, STACK, MARGIN, LANE = 200, 62, 130, 30, 34, 34, 16
_CHARS = 24


@dataclass(frozen=True, slots=True)
class PlacedBox:
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

    boxes: tuple[PlacedBox, ...]
    arrows: tuple[Drawn, ...]
    width: int
    height: int


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def layout(picture: Picture) -> Layout:
    """Places boxes in layers (callers left of callees) and draws arrows between them.

    A Service with one workload that has no other Service stands on top of it: one unit of the layout.
    """
    units = _units(picture)
    unit_of = {box.id: unit[0].id for unit in units for box in unit}
    links = [(unit_of[a.source], unit_of[a.target]) for a in picture.arrows if unit_of[a.source] != unit_of[a.target]]
    layers = _layers([unit[0].id for unit in units], links)
    columns: dict[int, list[list[Box]]] = defaultdict(list)
    for unit in units:
        columns[layers[unit[0].id]].append(unit)
    _untangle(columns, links)
    height = 2 * MARGIN + max((_height(c) for c in columns.values()), default=0)
    placed: dict[str, PlacedBox] = {}
    for position, layer in enumerate(sorted(columns)):
        y = (height - _height(columns[layer])) // 2
        for unit in columns[layer]:
            for box in unit:
                placed[box.id] = PlacedBox(box, MARGIN + position * (WIDTH + GAP_X), y)
                y += HEIGHT + STACK
            y += GAP_Y - STACK
    width = 2 * MARGIN + len(columns) * (WIDTH + GAP_X) - (GAP_X if columns else 0)
    return Layout(
        tuple(placed[b.id] for b in picture.boxes),
        tuple(_draw(a, placed) for a in picture.arrows),
        max(width, 2 * MARGIN),
        height,
    )


def _height(column: Sequence[Sequence[Box]]) -> int:
    return sum(len(unit) * (HEIGHT + STACK) - STACK for unit in column) + GAP_Y * (len(column) - 1)


def _units(picture: Picture) -> list[list[Box]]:
    """Boxes that are placed together: [Service, workload], or a box alone."""
    boxes = {b.id: b for b in picture.boxes}
    behind: dict[str, list[str]] = defaultdict(list)
    before: dict[str, list[str]] = defaultdict(list)
    for arrow in picture.arrows:
        if boxes[arrow.source].kind is BoxKind.SERVICE:
            behind[arrow.source].append(arrow.target)
            before[arrow.target].append(arrow.source)
    pairs = {s: w[0] for s, w in behind.items() if len(w) == 1 and before[w[0]] == [s]}
    inside = set(pairs.values())
    return [[b, boxes[pairs[b.id]]] if b.id in pairs else [b] for b in picture.boxes if b.id not in inside]


def _layers(nodes: Sequence[str], links: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The layer of each node: one more than the deepest of its callers; a cycle is cut where it is met again."""
    callees: dict[str, list[str]] = defaultdict(list)
    for source, target in links:
        callees[source].append(target)
    order: list[str] = []
    state: dict[str, int] = {}
    back: set[tuple[str, str]] = set()
    for root in nodes:
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
    layers = dict.fromkeys(nodes, 0)
    for node in reversed(order):
        for child in callees[node]:
            if (node, child) not in back:
                layers[child] = max(layers[child], layers[node] + 1)
    return layers


def _untangle(columns: dict[int, list[list[Box]]], links: Sequence[tuple[str, str]]) -> None:
    """Orders each column by the mean row of its neighbours, a few times, so that arrows cross less."""
    near: dict[str, list[str]] = defaultdict(list)
    for source, target in links:
        near[source].append(target)
        near[target].append(source)
    for column in columns.values():
        column.sort(key=lambda u: (list(BoxKind).index(u[0].kind), u[0].id))
    for _ in range(4):
        row = {u[0].id: i / max(1, len(c) - 1) for c in columns.values() for i, u in enumerate(c)}
        for column in columns.values():
            column.sort(key=lambda u: (_mean([row[n] for n in near[u[0].id]] or [row[u[0].id]]), u[0].id))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _draw(arrow: Arrow, placed: Mapping[str, PlacedBox]) -> Drawn:
    source, target = placed[arrow.source], placed[arrow.target]
    if source.x == target.x and source.y < target.y:  # a Service on top of its workload
        x, top, bottom = source.x + WIDTH / 2, source.y + HEIGHT, target.y - 7
        return Drawn(arrow, f"M{x:.0f},{top:.0f} L{x:.0f},{bottom:.0f}", x + 48, (top + bottom) / 2 + 5)
    between = [p for p in placed.values() if source.x < p.x < target.x]
    if between:
        return _around(arrow, source, target, between)
    forward = target.x > source.x
    x1, y1 = source.x + (WIDTH if forward else 0), source.y + HEIGHT / 2
    x2, y2 = target.x - (7 if forward else -WIDTH - 7), target.y + HEIGHT / 2
    bend = max(40.0, abs(x2 - x1) / 2) * (1 if forward else -1)
    path = f"M{x1:.0f},{y1:.0f} C{x1 + bend:.0f},{y1:.0f} {x2 - bend:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
    return Drawn(arrow, path, (x1 + x2) / 2, (y1 + y2) / 2 - 5)


def _around(arrow: Arrow, source: PlacedBox, target: PlacedBox, between: Sequence[PlacedBox]) -> Drawn:
    """An arrow over or under the columns between its ends, whichever is nearer."""
    top, bottom = min(p.y for p in between) - LANE, max(p.y for p in between) + HEIGHT + LANE
    x1, y1 = source.x + WIDTH, source.y + HEIGHT / 2
    x2, y2 = target.x - 7, target.y + HEIGHT / 2
    middle = (y1 + y2) / 2
    lane = top if middle - top < bottom - middle else bottom
    left, right = min(p.x for p in between), max(p.x for p in between) + WIDTH
    path = (
        f"M{x1:.0f},{y1:.0f} C{x1 + GAP_X / 2:.0f},{y1:.0f} {left - GAP_X / 2:.0f},{lane:.0f} {left:.0f},{lane:.0f} "
        f"L{right:.0f},{lane:.0f} C{right + GAP_X / 2:.0f},{lane:.0f} {x2 - GAP_X / 2:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
    )
    return Drawn(arrow, path, (left + right) / 2, lane - 5)
