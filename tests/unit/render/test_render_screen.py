"""The screen with keys: choose, look behind, filter, sort, pause, end; and what the run sees of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.screen.app import Detail, LiveApp
from kubectl_genainet.render.screen.frame import Frame, frame
from kubectl_genainet.render.screen.keys import KeyScreen
from kubectl_genainet.render.table import Column
from kubectl_genainet.render.trace.view import GroupView
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.trace import TraceOptions, trace_run

Shown = tuple[str, int, str]
COLUMNS: tuple[Column[Shown], ...] = (
    Column("NAME", lambda r: r[0]),
    Column("COUNT", lambda r: str(r[1]), right=True),
    Column("TOOK", lambda r: r[2], spare=1),
)
ROWS = (("ui", 3, "900 µs"), ("rag", 20, "1.2 ms"), ("batch", 100, "-"))
BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "mtu-blackhole.gnb"

Steps = Callable[[LiveApp, Pilot[None]], Awaitable[None]]


def frame_of(*rows: tuple[str, int, str]) -> Frame:
    shown = [(row[0], row, lambda _, name=row[0]: Text(f"behind {name}")) for row in rows]
    return frame(COLUMNS, shown, Text("watching"))


def drive(steps: Steps, first: Frame, size: tuple[int, int] = (80, 24)) -> LiveApp:
    """The app with one frame, driven by keys, without a terminal."""
    over = threading.Event()

    def run_it() -> None:
        over.wait(30)

    app = LiveApp(run_it)
    app.latest = first

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            app._tick()
            await pilot.pause()
            await steps(app, pilot)
        over.set()

    asyncio.run(run())
    app.gone.set()
    return app


def names(app: LiveApp) -> list[str]:
    shown = app.query_one(DataTable)
    return [str(shown.get_row_at(number)[0]) for number in range(shown.row_count)]


def test_a_row_is_chosen_and_what_is_behind_it_shown() -> None:
    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("down", "enter")
        assert isinstance(app.screen, Detail)
        assert str(app.screen.query_one("#behind", Static).render()) == "behind rag"
        await pilot.press("escape")
        assert not isinstance(app.screen, Detail)

    drive(steps, frame_of(*ROWS))


def test_the_chosen_row_stays_chosen_where_it_moves() -> None:
    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("down")
        app.latest = frame_of(("new", 9, "-"), *ROWS)
        app._tick()
        await pilot.pause()
        await pilot.press("enter")
        assert str(app.screen.query_one("#behind", Static).render()) == "behind rag"

    drive(steps, frame_of(*ROWS))


def test_a_filter_leaves_the_rows_with_its_words_and_escape_all() -> None:
    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"RAG", "enter")
        assert names(app) == ["rag"]
        await pilot.press("escape")
        assert names(app) == ["ui", "rag", "batch"]

    drive(steps, frame_of(*ROWS))


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
def test_a_filter_that_no_row_has_says_so_until_it_is_cleared(size: tuple[int, int]) -> None:
    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        said = app.query_one("#no-match", Static)
        await pilot.press("slash", *"xyz", "enter")
        assert names(app) == [] and said.display
        assert str(said.render()) == "no row matches 'xyz' (3 rows); Esc shows all again"
        assert said.region.y < 3, "just below the titles"
        app.latest = frame_of(("xyz", 1, "-"), *ROWS)
        app._tick()
        await pilot.pause()
        assert names(app) == ["xyz"] and not said.display
        app.latest = frame_of(*ROWS)
        app._tick()
        await pilot.press("escape")
        assert names(app) == ["ui", "rag", "batch"] and not said.display
        await pilot.press("down", "enter")
        assert str(app.screen.query_one("#behind", Static).render()) == "behind rag", "the table has the keys again"

    drive(steps, frame_of(*ROWS), size)


def test_sorting_goes_through_the_columns_and_back() -> None:
    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        orders = []
        for _ in range(4):
            await pilot.press("s")
            orders.append(names(app))
        assert orders == [
            ["batch", "rag", "ui"],
            ["batch", "rag", "ui"],
            ["rag", "ui", "batch"],
            ["ui", "rag", "batch"],
        ]

    drive(steps, frame_of(*ROWS))


def test_a_pause_keeps_the_frame_until_it_ends() -> None:
    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        app.latest = frame_of(("new", 9, "-"))
        app._tick()
        assert names(app) == ["ui", "rag", "batch"]
        await pilot.press("p")
        app._tick()
        assert names(app) == ["new"]

    drive(steps, frame_of(*ROWS))


def test_a_narrow_terminal_leaves_out_spare_columns() -> None:
    assert frame_of(*ROWS).fitting(80) == [0, 1, 2]
    assert frame_of(*ROWS).fitting(18) == [0, 1]
    assert frame_of(*ROWS).fitting(5) == [0, 1], "all that are not spare"


def test_however_narrow_what_went_wrong_and_why_stay() -> None:
    columns: tuple[Column[Shown], ...] = (
        Column("VERDICT", lambda r: r[0]),
        Column("CLIENT", lambda r: r[2]),
        Column("LAST", lambda r: r[2], spare=1),
        Column("BACKEND", lambda r: r[2]),
        Column("CAUSE", lambda r: r[2]),
    )
    row = ("dropped", 1, "a-name-of-20-letters")
    shown = frame(columns, [("key", row, lambda _: Text())], Text(), kept=("VERDICT", "CAUSE"))
    fitting = {width: [shown.titles[number] for number in shown.fitting(width)] for width in (120, 80, 60, 40, 20)}
    assert fitting == {
        120: ["VERDICT", "CLIENT", "LAST", "BACKEND", "CAUSE"],
        80: ["VERDICT", "CLIENT", "BACKEND", "CAUSE"],
        60: ["VERDICT", "CLIENT", "CAUSE"],
        40: ["VERDICT", "CAUSE"],
        20: ["VERDICT", "CAUSE"],
    }


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_the_end_reaches_the_run_as_an_interrupt_each_time(key: str) -> None:
    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        screen = KeyScreen(app)
        screen.start()
        assert screen.due(0.0)
        for times in (1, 2):
            await pilot.press(key)
            while app.ends < times:  # a key goes through the queues of widget, screen and app
                await pilot.pause()
            with pytest.raises(KeyboardInterrupt):
                screen.due(0.0)
            screen.due(0.0)

    drive(steps, frame_of(*ROWS))


def test_connections_are_drilled_into_as_they_come() -> None:
    views: list[GroupView] = []

    def make(target: str, *, live: bool) -> GroupView:
        views.append(GroupView(target, live=live))
        return views[0]

    run, _ = trace_run(BundleSource(BUNDLE), parse_target("svc/my-llama-svc"), TraceOptions(), make)
    for event in read_bundle(BUNDLE).events:
        run.take(event)
    run.finish(live=False)

    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        behind = app.screen.query_one("#behind", Static)
        assert behind.size.height > 5, "the example path with its hops"

    shown = views[0].frame()
    assert shown.rows and shown.titles[:3] == ("VERDICT", "CONNS", "CLIENT")
    drive(steps, shown)


def test_what_is_said_meanwhile_is_printed_when_the_terminal_is_free(capsys: pytest.CaptureFixture[str]) -> None:
    view = GroupView("svc/x", live=True)

    async def steps(app: LiveApp, pilot: Pilot[None]) -> None:
        view.use(screen := KeyScreen(app))
        screen.start()
        view.warn("node-9 is slow")
        assert [text.plain for text in app.said] == ["warning: node-9 is slow"]

    drive(steps, frame_of(*ROWS))
    view.note("over")
    assert capsys.readouterr().err.splitlines()[-2:] == ["warning: node-9 is slow", "over"]
