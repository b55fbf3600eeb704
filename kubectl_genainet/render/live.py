"""What every live view shows of a run: progress, warnings, losses; and how data leaves."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from kubectl_genainet.context.account import losses_text, warning_of
from kubectl_genainet.model.events import CheckConnectionResult, Event, Hello, LostEvents, NameLookup, Progress
from kubectl_genainet.render.screen.frame import Frame
from kubectl_genainet.render.text import duration, make_console, printable


def write_json(value: object) -> None:
    """One object a line on stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def write_yaml(value: object) -> None:
    """One document a value on stdout."""
    sys.stdout.write("---\n" + msgspec.yaml.encode(value).decode())
    sys.stdout.flush()


def record_writer(output: str) -> Callable[[object], None] | None:
    """What writes records in that format; None for a format that is for people."""
    if output.startswith("jsonpath="):
        from kubectl_genainet.render.jsonpath import jsonpath_writer

        return jsonpath_writer(output)
    if output.startswith("go-template="):
        from kubectl_genainet.render.gotemplate.evaluate import go_template_writer

        return go_template_writer(output)
    if output == "name":
        from kubectl_genainet.render.names import name_writer

        return name_writer()
    return {"json": write_json, "yaml": write_yaml}.get(output)


def lookup_text(lookup: NameLookup) -> str:
    """What became of the lookup before a check connection."""
    if not lookup.server:
        return f"name {lookup.name}: {lookup.outcome}"
    result = ", ".join(lookup.addresses) or lookup.outcome
    asked = f"{lookup.asked} of {lookup.server}, queries: {lookup.queries}"
    return f"name {lookup.name}: {result} ({asked}, {duration(lookup.took_ns)})"


class Screen:
    """A terminal that is drawn on in place, from `start` until `stop`, which leaves nothing there."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._made = time.monotonic()
        self._next = 0.0  # when it is to be drawn on again

    @property
    def on(self) -> bool:
        return self._live.is_started

    @property
    def age_s(self) -> int:
        return int(time.monotonic() - self._made)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def due(self, every_s: float) -> bool:
        """Whether it is on, and time to draw: on average every so many seconds, however long drawing takes."""
        now = time.monotonic()
        if not self.on or now < self._next:
            return False
        self._next = max(self._next + every_s, now + every_s / 2)
        return True

    def show(self, view: LiveView) -> None:
        """Draws what the view shows now."""
        self._live.update(Group(*view.drawn()), refresh=True)

    def say(self, console: Console, text: Text, *, stays: bool) -> None:
        """A line above what is drawn; one that `stays` matters after the run too."""
        console.print(text, soft_wrap=True)


class LiveView:
    """The base of a verb's renderers: data goes to stdout; progress, warnings and losses to stderr.

    One that is `in_place` has a `screen` while it is entered, where stdout is a terminal and the packets are live: at most
    every `every_s` it shows what is `drawn`, or, on a screen with keys, the `frame`.
    """

    in_place: bool = False
    every_s: float = 0.25

    def __init__(self, target: str, *, live: bool) -> None:
        self.target, self.live = target, live
        self.console = make_console()
        self.messages = make_console(stderr=True)
        self.screen = Screen(self.console)
        self._attached: set[str] = set()
        self._told: Counter[str] = Counter()
        self._lost: Counter[tuple[str, str, str]] = Counter()  # by node, probe and place

    def __enter__(self) -> Self:
        if self.in_place and self.live and self.console.is_terminal:
            self.screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.screen.stop()
        if self._lost:
            self.warn(losses_text(self._lost))
            self._lost.clear()

    def use(self, screen: Screen) -> None:
        """Takes another screen, before it is entered."""
        self.screen = screen

    def drawn(self) -> list[RenderableType]:
        """What there is to see now."""
        return [self.state()]

    def frame(self) -> Frame:
        """The same as rows, for a screen with keys."""
        return Frame((), (), (), (), self.state())

    def state(self, *counts: str) -> Text:
        """The line below what is drawn in place."""
        nodes = len(self._attached)
        doing = f"watching {self.target} on {nodes} nodes" if nodes else "loading the probes"
        lost = (f"{self._lost.total()} events lost",) if self._lost else ()
        line = ", ".join((doing, f"{self.screen.age_s} s", *counts, *lost))
        return Text(printable(f"{line} (Ctrl-C ends)"), style="dim")

    def warn(self, text: str) -> None:
        self.screen.say(self.messages, Text(f"warning: {printable(text)}", style="yellow"), stays=True)

    def note(self, text: str) -> None:
        self.screen.say(self.messages, Text(printable(text), style="dim"), stays=not self.screen.on)

    def replaying(self, header: object) -> None:
        created, tool = getattr(header, "created", ""), getattr(header, "tool", "")
        arguments = getattr(header, "arguments", {})
        if "since" in arguments and "until" in arguments:
            times = f"{arguments['since'][:19]}Z to {arguments['until'][:19]}Z"
            self.note(f"what the recorders kept from {times}: this is not live traffic")
            return
        self.note(f"replaying a bundle recorded {created} by version {tool}: this is not live traffic")

    def event(self, event: Event) -> None:
        if warning := warning_of(event):
            self.warn(warning)
        match event:
            case LostEvents():
                self._lost[event.node, event.probe, event.where] += event.count
            case Progress(stage="compiling") if self.live:
                self.note(f"node {event.node}: {event.detail}")
            case Progress(stage="attached"):
                self._attached.add(event.node)
                if self.live and self.messages.is_terminal:
                    self.note(f"watching on {', '.join(sorted(self._attached))}")
            case CheckConnectionResult():
                took = f" in {event.connect_ns / 1e3:.0f} µs" if event.connect_ns else ""
                if event.lookup is not None:
                    self.note(lookup_text(event.lookup))
                self.note(f"check {event.url}: {event.outcome}{took}")
            case Hello() if self.live and self.messages.is_terminal and not self._told["hello"]:
                self._told["hello"] += 1
                self.note("loading the probes")
            case _:
                pass

    def refresh(self) -> None:
        """Called a few times a second."""
        if self.screen.due(self.every_s):
            self.screen.show(self)
