"""The hops of one packet as lines: aligned where there is room, one after the other where there is none."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from kubectl_genainet.model.results.path import Hop, PacketPath
from kubectl_genainet.render.text import duration, printable

_GAP = "  "


def hop_lines(path: PacketPath, room: int) -> list[Text]:
    """A line a hop: where, device, direction, the time since the hop before, what changed; `room` is the width."""
    rows, before = [], None
    for number, hop in enumerate(path.hops):
        cells = (printable(hop.pod or hop.node), printable(hop.device), hop.point, since(before, hop))
        rows.append((cells, _note(path, number, before)))
        before = hop
    widths = [max((cell_len(cells[i]) for cells, _ in rows), default=0) for i in range(4)]
    fits = sum(widths) + 3 * len(_GAP) <= room
    lines: list[Text] = []
    for cells, note in rows:
        line = Text(_aligned(cells, widths) if fits else " ".join(cells), overflow="fold")
        if not note:
            lines.append(line)
        elif cell_len(line.plain) + len(_GAP) + cell_len(note.plain) <= room:
            lines.append(line.append(_GAP).append_text(note))
        else:
            lines += [line, Text("    ").append_text(note)]
    return lines


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = [c + " " * (w - cell_len(c)) for c, w in zip(cells[:3], widths, strict=False)]
    return _GAP.join((*padded, " " * (widths[3] - cell_len(cells[3])) + cells[3]))


def _note(path: PacketPath, number: int, before: Hop | None) -> Text:
    hop, note = path.hops[number], Text(overflow="fold")
    if path.nat is not None and path.nat.hop is not None and number == path.nat.hop + 1:
        note.append(f"NAT {path.nat.before} → {path.nat.after}", style="magenta")
    if hop.tunnel:
        note.append(f"{' ' if note else ''}inside {hop.tunnel}", style="dim")
    if before is not None and before.src != hop.src:
        note.append(f"{' ' if note else ''}source now {hop.src}", style="magenta")
    return note


def since(before: Hop | None, hop: Hop) -> str:
    """The time since the hop before, with its uncertainty; "?" where clocks can't be compared."""
    if before is None:
        return "0"
    if hop.t_error_ns is None or before.t_error_ns is None:
        return "?" if hop.node != before.node else f"+{duration(hop.t_ns - before.t_ns)}"
    error = (hop.t_error_ns + before.t_error_ns) if hop.node != before.node else 0
    passed = hop.t_ns - before.t_ns
    return f"{'-' if passed < 0 else '+'}{duration(abs(passed))}" + (f" ±{duration(error)}" if error else "")
