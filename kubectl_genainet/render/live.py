"""What every live view shows of a run: progress, warnings, losses; and how data leaves."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from kubectl_genainet.context.account import losses_text, warning_of
from kubectl_genainet.model.events import CheckConnectionResult, Event, Hello, LostEvents, NameLookup, Progress
from kubectl_genainet.model.finding import counted, listed
from kubectl_genainet.render.data_text import json_text, yaml_text
from kubectl_genainet.render.paragraphs import print_prose
from kubectl_genainet.render.screen.frame import Frame
from kubectl_genainet.render.text import duration, make_console, printable

LOADING = "loading the probes"


def write_json(value: object) -> None:
    """One object a line on stdout."""
    sys.stdout.write(json_text(value) + "\n")
    sys.stdout.flush()


def write_yaml(value: object) -> None:
    """One document a value on stdout."""
    sys.stdout.write(yaml_text([value], explicit_start=True))
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
        self._next = 0.0  # when it is to be drawn on again

    @property
    def on(self) -> bool:
        return self._live.is_started

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
        self.print_message(console, text)

    @staticmethod
    def print_message(console: Console, text: Text) -> None:
        """In a terminal wrapped at words; elsewhere a line, whatever COLUMNS says: programs look for parts of it."""
        if console.is_terminal:
            print_prose(console, text)
        else:
            console.print(text, soft_wrap=True)


class ProgressClock:
    """When a run without a screen says how far it is: after 5 s, and then after twice as long each time, up to a minute."""

    FIRST_S, LONGEST_S = 5.0, 60.0
    SETTLED_S = 1.0  # agents attach one after the other: the nodes are named once none has come for so long

    def __init__(self) -> None:
        now = time.monotonic()
        self._pause_s, self._next = self.FIRST_S, now + self.FIRST_S
        self._attached, self._attached_at = 0, now

    def settled(self, attached: int) -> bool:
        now = time.monotonic()
        if attached != self._attached:
            self._attached, self._attached_at = attached, now
        return now - self._attached_at >= self.SETTLED_S

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._pause_s = min(self.LONGEST_S, 2 * self._pause_s)
        self._next = now + self._pause_s
        return True


class LiveView:
    """The base of a verb's renderers: data goes to stdout; progress, warnings and losses to stderr.

    One that is `in_place` has a `screen` while it is entered, where stdout is a terminal and the packets are live: at most
    every `every_s` it shows what is `drawn`, or, on a screen with keys, the `frame`. Without a screen, one that does not
    print its records `as_known` says on stderr, now and then, how far it is.
    """

    in_place: bool = False
    as_known: bool = False
    every_s: float = 0.25
    length_s: float = 0.0  # of the run, where it is known
    write: Callable[[object], None] = staticmethod(write_json)  # of a view that shows records

    def __init__(self, target: str, *, live: bool) -> None:
        self.target, self.live = target, live
        self.console = make_console()
        self.messages = make_console(stderr=True)
        self.screen = Screen(self.console)
        self._attached: set[str] = set()
        self._since = time.monotonic()  # of the state: of the view, and then of the first agent's probes
        self._progress = ProgressClock()
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

    def counts(self) -> tuple[str, ...]:
        """What was seen so far, as parts of the state."""
        return ()

    def state(self) -> Text:
        """The line below what is drawn in place."""
        return Text(printable(f"{self._state()} (Ctrl-C ends)"), style="dim")

    def _state(self) -> str:
        doing = f"watching {self.target} on {counted(len(self._attached), 'node')}" if self._attached else LOADING
        lost = (f"{counted(self._lost.total(), 'event')} lost",) if self._lost else ()
        length = f" of {self.length_s:g}" if self.length_s and self._attached else ""
        age = f"{int(time.monotonic() - self._since)}{length} s"
        return ", ".join((doing, age, *self.counts(), *lost))

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

    def shortened(self, seconds: float) -> None:
        self.length_s = round(seconds)
        self.note(f"the agents took long to start: watching for {self.length_s} s")

    def event(self, event: Event) -> None:
        if warning := warning_of(event):
            self.warn(warning)
        match event:
            case LostEvents():
                self._lost[event.node, event.probe, event.where] += event.count
            case Progress(stage="compiling") if self.live:
                self.note(f"node {event.node}: {event.detail}")
            case Progress(stage="attached"):
                if not self._attached:
                    self._since, self._progress = time.monotonic(), ProgressClock()
                self._attached.add(event.node)
            case CheckConnectionResult():
                took = f" in {event.connect_ns / 1e3:.0f} µs" if event.connect_ns else ""
                if event.lookup is not None:
                    self.note(lookup_text(event.lookup))
                self.note(f"check {event.url}: {event.outcome}{took}")
            case Hello() if self.live and not self.screen.on and not self._told["hello"]:
                self._told["hello"] += 1
                self.note(LOADING)
            case _:
                pass

    def refresh(self) -> None:
        """Called a few times a second."""
        if self.screen.due(self.every_s):
            self.screen.show(self)
        elif self.live and not self.screen.on:
            self._say_progress()

    def _say_progress(self) -> None:
        """Where nothing is drawn in place: which nodes are watched, and now and then how far the run is."""
        attached = len(self._attached)
        if self._told["attached"] != attached and self._progress.settled(attached):
            self._told["attached"] = attached
            self.note(f"watching on {listed(sorted(self._attached))}")
        elif not self.as_known and self._progress.due():
            self.note(self._state())


V = TypeVar("V", bound=LiveView)


def make_view(views: Mapping[str, Callable[..., V]], output: str, target: str, *, live: bool, **options: Any) -> V:
    """The view for `output`; that of "json" shows records in every format for programs."""
    write = record_writer(output)
    view = views[output if write is None else "json"](target, live=live, **options)
    if write is not None:
        view.write = write
    return view
