"""Runs a run beside a screen with keys, where there is a terminal to draw on and a keyboard."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.render.live import Screen

W = TypeVar("W", covariant=True)


class _View(Protocol):
    def use(self, screen: Screen) -> None: ...


class _MakeView(Protocol[W]):
    def __call__(self, target: str, *, live: bool) -> W: ...


V = TypeVar("V", bound=_View)


def has_keys() -> bool:
    """Whether somebody sits there: a terminal that can be drawn on, and its keyboard."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def on_screen(run: Callable[[_MakeView[V]], ExitStatus], make_view: _MakeView[V], *, wanted: bool) -> ExitStatus:
    """What the run returns or raises; with a screen that has keys where it is wanted and can be had."""
    if not (wanted and has_keys()):
        return run(make_view)
    from kubectl_genainet.render.screen.app import LiveApp
    from kubectl_genainet.render.screen.keys import KeyScreen

    outcome: list[ExitStatus | BaseException] = []

    def make(target: str, *, live: bool) -> V:
        view = make_view(target, live=live)
        view.use(KeyScreen(app))
        return view

    def run_it() -> None:
        try:
            outcome.append(run(make))
        except BaseException as error:  # the main thread raises it
            outcome.append(error)
        finally:
            app.leave()

    app = LiveApp(run_it)
    app.run()
    app.gone.set()
    if app.run_thread is not None:
        app.run_thread.join()
    if not outcome:
        raise KeyboardInterrupt
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
