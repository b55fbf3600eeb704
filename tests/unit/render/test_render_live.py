"""The screen that the live views share: in place on a terminal, nothing in a pipe or from a bundle."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.events import Progress
from kubectl_genainet.render.dns import views as dns
from kubectl_genainet.render.drops import views as drops
from kubectl_genainet.render.live import LiveView
from kubectl_genainet.render.trace import view as trace

TARGET = "svc/my-llama-svc"
ATTACHED = Progress(node="node-1", t_ns=1, stage="attached")


def views(*, live: bool) -> list[LiveView]:
    return [
        trace.make_view("tree", TARGET, live=live),
        drops.make_view("table", TARGET, live=live),
        dns.make_dns_view("table", TARGET, live=live, by_server=False),
    ]


def test_a_pipe_is_not_drawn_on(capsys: pytest.CaptureFixture[str]) -> None:
    for view in views(live=True):
        with view:
            view.event(ATTACHED)
            view.refresh()
            assert not view.screen.on
    assert capsys.readouterr().out == ""


def test_a_bundle_is_not_drawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for view in views(live=False):
        with view:
            assert view.console.is_terminal and not view.screen.on


def test_a_terminal_shows_what_is_watched_and_is_left_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    view = drops.make_view("table", TARGET, live=True)
    with view:
        view.refresh()
        assert "loading the probes, 0 s (Ctrl-C ends)" in capsys.readouterr().out
        view.event(ATTACHED)
        assert view.state("3 queries").plain == f"watching {TARGET} on 1 nodes, 0 s, 3 queries (Ctrl-C ends)"
        view.refresh()
        assert capsys.readouterr().out == "", "not more than once a second"
    assert not view.screen.on
