"""The screen with keys, as a run's view sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kubectl_genainet.render.live import LiveView, Screen
from kubectl_genainet.render.screen.app import LiveApp

if TYPE_CHECKING:
    from rich.console import Console


class KeyScreen(Screen):
    """Hands frames to the app. What is said meanwhile is shown there, and printed when the terminal is as it was."""

    def __init__(self, app: LiveApp) -> None:
        self._app = app
        self._next = 0.0
        self._ends = 0
        self._later: list[Text] = []
        self._started = False

    @property
    def on(self) -> bool:
        return self._started and not self._app.gone.is_set()

    def start(self) -> None:
        self._started = True

    def stop(self) -> None:
        self._app.leave()

    def due(self, every_s: float) -> bool:
        """Raises KeyboardInterrupt where the user asked for the end, as Ctrl-C does without a screen."""
        if self._ends < self._app.ends:
            self._ends = self._app.ends
            raise KeyboardInterrupt
        return super().due(every_s)

    def show(self, view: LiveView) -> None:
        self._app.latest = view.frame()

    def say(self, console: Console, text: Text, *, stays: bool) -> None:
        if not self.on:
            for earlier in self._later:
                self.print_message(console, earlier)
            self._later.clear()
            super().say(console, text, stays=stays)
            return
        self._app.said.append(text)
        if stays:
            self._later.append(text)
