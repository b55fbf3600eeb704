"""A screen with keys, in the terminal's second buffer: what was on the terminal is there again when it ends."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from kubectl_genainet.model.finding import counted
from kubectl_genainet.render.screen.frame import Frame, FrameRow
from kubectl_genainet.render.text import printable

DRAW_S = 0.25
OWN_COLOURS = ("ansi-dark", "textual-ansi")  # themes of the terminal's own colours, by textual's versions
SAID = 2  # warnings and notes that are shown at once
KEYS = (
    ("↑ ↓", "choose a row"),
    ("Enter", "show what is behind it; Esc goes back"),
    ("/", "show only rows with these words; Esc shows all again"),
    ("s", "sort by the next column; after the last one as at the beginning"),
    ("p", "pause drawing; the run goes on"),
    ("q", "end the run and print its result; twice: at once"),
    ("?", "this help"),
)


class Detail(ModalScreen[None]):
    """What is behind a row, or the help."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "dismiss", "back"),
        Binding("question_mark", "dismiss", show=False),
    ]

    def __init__(self, make: Callable[[int], object], title: str) -> None:
        super().__init__()
        self._make, self._title = make, title

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="behind")
        yield Static(Text(f"{self._title}  (↑ ↓ scroll, Esc goes back)", style="dim"), id="foot")

    def on_mount(self) -> None:
        self._draw()
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self.query_one("#behind", Static).update(self._make(max(20, self.size.width - 2)))  # type: ignore[arg-type]


class LiveApp(App[None]):
    """Draws the latest frame, at most four times a second. `run_it` is the run, in a thread of its own."""

    CSS = """
    Screen { background: $background; }
    DataTable { height: 1fr; }
    DataTable.without-rows { height: 1; }
    #no-match { display: none; height: 1fr; padding: 1 1; }
    #no-match.open { display: block; }
    Input { display: none; height: 1; border: none; padding: 0; }
    Input.open { display: block; }
    #state, #foot { height: auto; max-height: 12; }
    Detail { background: $background; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+q", "end", "end"),
        Binding("ctrl+c", "end", show=False, priority=True),
        Binding("p", "pause", "pause"),
        Binding("slash", "filter", "filter"),
        Binding("s", "sort", "sort"),
        Binding("question_mark", "help", "help"),
        Binding("escape", "clear", show=False),
    ]

    def __init__(self, run_it: Callable[[], None]) -> None:
        super().__init__(ansi_color=True)
        self.latest: Frame | None = None
        self.ends = 0  # how often the user has asked for the end
        self.said: deque[Text] = deque(maxlen=SAID)
        self.gone = threading.Event()  # the terminal is as it was before
        self.run_thread: threading.Thread | None = None
        self._run_it = run_it
        self._drawn: Frame | None = None
        self._columns: list[int] = []
        self._sort: int | None = None
        self._words = ""
        self._paused = False
        self._rows: dict[str, FrameRow] = {}

    def compose(self) -> ComposeResult:
        yield DataTable(cursor_type="row", zebra_stripes=False, cell_padding=1)
        yield Static(id="no-match")
        yield Input(placeholder="words that a row must have")
        self._state = Static("loading the probes", id="state")
        yield self._state

    def on_mount(self) -> None:
        self.theme = next((theme for theme in OWN_COLOURS if theme in self.available_themes), self.theme)
        self.query_one(DataTable).focus()
        self.set_interval(DRAW_S, self._tick)
        self.run_thread = threading.Thread(target=self._run_it, name="run", daemon=True)
        self.run_thread.start()

    def leave(self) -> None:
        """From another thread: ends the screen, and waits until the terminal is as it was."""
        if not self.gone.is_set():
            self.call_from_thread(self.exit)
            self.gone.wait(10)

    def _tick(self) -> None:
        if not self._state.is_attached:  # the screen is being taken down, and its widgets are gone before its timers
            return
        if self.latest is not None and not self._paused and self.latest is not self._drawn:
            self._draw(self.latest)
        self._draw_state()

    def on_resize(self) -> None:
        self._columns = []
        if self._drawn is not None and self._state.is_attached:
            self._draw(self._drawn)

    def _draw(self, frame: Frame) -> None:
        self._drawn = frame
        shown = self.query_one(DataTable)
        columns = frame.fitting(shown.size.width)
        if columns != self._columns:
            self._columns = columns
            shown.clear(columns=True)
            self._rows = {}
            for number in columns:
                shown.add_column(self._title(frame, number), key=str(number))
        rows = [row for row in frame.sorted_by(self._sort) if row.has(self._words)]
        chosen = self._chosen
        if [row.key for row in rows] != list(self._rows):
            shown.clear()
            for row in rows:
                shown.add_row(*self._cells(frame, row), key=row.key)
        else:
            for row in rows:
                if row.cells != self._rows[row.key].cells:
                    for number, cell in zip(columns, self._cells(frame, row), strict=True):
                        shown.update_cell(row.key, str(number), cell, update_width=True)
        self._rows = {row.key: row for row in rows}
        if chosen in self._rows:
            shown.move_cursor(row=shown.get_row_index(chosen), animate=False)
        self._say_no_match(len(frame.rows))

    def _say_no_match(self, count: int) -> None:
        """Below the titles, where the filter leaves none of so many rows: an empty table would look like no traffic."""
        none = bool(self._words) and not self._rows
        self.query_one(DataTable).set_class(none, "without-rows")
        said = self.query_one("#no-match", Static)
        said.set_class(none, "open")
        if none:
            text = f"no row matches '{printable(self._words)}' ({counted(count, 'row')}); Esc shows all again"
            said.update(Text(text, style="yellow"))

    @property
    def _chosen(self) -> str:
        shown = self.query_one(DataTable)
        keys = list(self._rows)
        return keys[shown.cursor_row] if 0 <= shown.cursor_row < len(keys) else ""

    def _title(self, frame: Frame, number: int) -> Text:
        mark = " ▼" if number == self._sort else ""
        return Text(frame.titles[number] + mark, style="bold", justify="right" if frame.right[number] else "left")

    def _cells(self, frame: Frame, row: FrameRow) -> list[Text]:
        return [
            Text(row.cells[n], style=row.styles[n], justify="right" if frame.right[n] else "left", no_wrap=True)
            for n in self._columns
        ]

    def _draw_state(self) -> None:
        key_hints = ["q ends", "p pauses", "/ filters", "s sorts", "Enter shows more", "? help"]
        if self._paused:
            key_hints[1] = "PAUSED (p)"
        if self._words:
            key_hints[2] = f"/{self._words} (Esc: all)"
        if self.ends:
            key_hints[0] = "ending …"
        state = self.latest.state if self.latest is not None else Text("loading the probes", style="dim")
        self._state.update(Group(*self.said, state, Text(" · ".join(key_hints), style="dim")))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        row = self._rows.get(event.row_key.value or "")
        if row is not None:
            self.push_screen(Detail(row.detail, " ".join(row.cells[:3])))

    def on_input_changed(self, event: Input.Changed) -> None:
        self._words = event.value.strip()
        self._redraw()

    def on_input_submitted(self) -> None:
        self._close_input()

    def _close_input(self) -> None:
        self.query_one(Input).remove_class("open")
        self.query_one(DataTable).focus()

    def _redraw(self) -> None:
        if self._drawn is not None:
            self._draw(self._drawn)

    def action_end(self) -> None:
        self.ends += 1

    def action_pause(self) -> None:
        self._paused = not self._paused

    def action_filter(self) -> None:
        self.query_one(Input).add_class("open")
        self.query_one(Input).focus()

    def action_clear(self) -> None:
        self.query_one(Input).value = ""
        self._words = ""
        self._close_input()
        self._redraw()

    def action_sort(self) -> None:
        later = [number for number in self._columns if self._sort is None or number > self._sort]
        self._sort = later[0] if later else None
        self._columns = []
        self._redraw()

    def action_help(self) -> None:
        text = Text("\n".join(f"{keys:<8}{what}" for keys, what in KEYS))
        self.push_screen(Detail(lambda _: text, "Keys"))
