"""The screen that the live views share: in place on a terminal, nothing in a pipe or from a bundle."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from kubectl_genainet.model.events import Hello, Progress
from kubectl_genainet.render.diagnose.text import ConclusionView
from kubectl_genainet.render.dns import views as dns
from kubectl_genainet.render.drops import views as drops
from kubectl_genainet.render.live import LiveView, ProgressClock, make_view
from kubectl_genainet.render.trace import view as trace
from tests.unit.diagnose.test_felt import path as some_path

TARGET = "svc/my-llama-svc"
HELLO = Hello(
    node="node-1", protocol=2, version="1", kernel="6.1", boot_id="b", t_ns=1, realtime_ns=1, tier="tracepoint"
)
ATTACHED = Progress(node="node-1", t_ns=1, stage="attached")


def views(*, live: bool) -> list[LiveView]:
    return [
        make_view(trace.VIEWS, "tree", TARGET, live=live),
        make_view(drops.VIEWS, "table", TARGET, live=live),
        make_view(dns.VIEWS, "table", TARGET, live=live, by_server=False),
    ]


def test_a_pipe_is_not_drawn_on(capsys: pytest.CaptureFixture[str]) -> None:
    for view in views(live=True):
        with view:
            view.event(ATTACHED)
            view.refresh()
            assert not view.screen.on
    assert capsys.readouterr().out == ""


def test_in_a_pipe_a_run_says_on_stderr_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ProgressClock, "FIRST_S", 0.0)
    monkeypatch.setattr(ProgressClock, "SETTLED_S", 0.0)
    counts = {"tree": "0 connections", "text": "0 connections, 0 DNS queries", "table": "0 packets dropped"}
    for output, made in (
        ("tree", make_view(trace.VIEWS, "tree", TARGET, live=True)),
        ("table", make_view(drops.VIEWS, "table", TARGET, live=True)),
        ("text", ConclusionView("text", 0.0, TARGET, live=True)),
    ):
        view: LiveView = made
        for event in (HELLO, ATTACHED):
            view.event(event)
        for _ in range(2):
            view.refresh()
        said = capsys.readouterr()
        assert said.err.splitlines() == [
            "loading the probes",
            "watching on node-1",
            f"watching {TARGET} on 1 node, 0 s, {counts[output]}",
        ]
        assert said.out == ""


def test_a_run_that_prints_records_as_they_come_counts_nothing_beside_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ProgressClock, "FIRST_S", 0.0)
    for views in (trace.VIEWS, drops.VIEWS):
        view: LiveView = make_view(views, "json", TARGET, live=True)
        view.refresh()
    assert capsys.readouterr().err == ""


def test_a_bundle_is_not_drawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for view in views(live=False):
        with view:
            assert view.console.is_terminal and not view.screen.on


def test_a_terminal_shows_what_is_watched_and_is_left_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    view = make_view(drops.VIEWS, "table", TARGET, live=True)
    with view:
        view.refresh()
        assert "loading the probes, 0 s (Ctrl-C ends)" in capsys.readouterr().out
        view.event(ATTACHED)
        view.length_s = 30.0
        assert view.state().plain == f"watching {TARGET} on 1 node, 0 of 30 s (Ctrl-C ends)"
        view.refresh()
        assert capsys.readouterr().out == "", "not more than once a second"
    assert not view.screen.on


@pytest.mark.parametrize("terminal", [True, False])
def test_a_connection_that_is_followed_is_one_line_which_a_narrow_terminal_gets_wrapped_at_words(
    terminal: bool,
) -> None:
    """The terminal broke it in the middle of the Service's name."""
    view = trace.FollowView(TARGET, live=True)
    out = io.StringIO()
    view.console = Console(file=out, width=80, force_terminal=terminal, color_system=None)
    path = msgspec.structs.replace(some_path(), time="2026-11-30T12:33:24.433860Z", handshake_ns=65_300)
    view.path(path)
    lines = out.getvalue().splitlines()
    words = [word for line in lines for word in line.split()]
    assert "svc/llm-svc:80" in words and "llm-abc" in words
    assert (len(lines) > 1) is terminal
    assert all(len(line) <= 80 for line in lines[1:]) and all(line.startswith("  ") for line in lines[1:])
