"""What every live view shows of a run: progress, warnings, losses; and how data leaves."""

from __future__ import annotations

import sys
from collections import Counter
from types import TracebackType
from typing import Self

import msgspec
from rich.text import Text

from kubectl_genainet.model.events import AgentFailed, Event, Hello, LostEvents, ProbeResult, Progress
from kubectl_genainet.render.text import make_console, printable


def write_json(value: object) -> None:
    """One object a line on stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def write_yaml(value: object) -> None:
    """One document a value on stdout."""
    sys.stdout.write("---\n" + msgspec.yaml.encode(value).decode())
    sys.stdout.flush()


class LiveView:
    """The base of a verb's renderers: progress, warnings and losses go to stderr."""

    def __init__(self, target: str, *, live: bool) -> None:
        self.target, self.live = target, live
        self.messages = make_console(stderr=True)
        self._attached: set[str] = set()
        self._told: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def warn(self, text: str) -> None:
        self.messages.print(Text(f"warning: {printable(text)}", style="yellow"), soft_wrap=True)

    def note(self, text: str) -> None:
        self.messages.print(Text(printable(text), style="dim"), soft_wrap=True)

    def replaying(self, header: object) -> None:
        created, tool = getattr(header, "created", ""), getattr(header, "tool", "")
        self.note(f"replaying a bundle recorded {created} by version {tool}: this is not live traffic")

    def event(self, event: Event) -> None:
        match event:
            case AgentFailed():
                self.warn(f"node {event.node}: {event.message}{f' ({event.hint})' if event.hint else ''}")
            case Progress(stage="missing"):
                self.warn(f"node {event.node}: {event.detail}")
            case Progress(stage="attached"):
                self._attached.add(event.node)
                if self.live and self.messages.is_terminal:
                    self.note(f"watching on {', '.join(sorted(self._attached))}")
            case LostEvents():
                self.warn(f"node {event.node}: {event.count} events of {event.probe} lost ({event.where})")
            case ProbeResult():
                took = f" in {event.connect_ns / 1e3:.0f} µs" if event.connect_ns else ""
                self.note(f"probe {event.url}: {event.outcome}{took}")
            case Hello() if self.live and self.messages.is_terminal and not self._told["hello"]:
                self._told["hello"] += 1
                self.note("loading the probes")
            case _:
                pass

    def refresh(self) -> None:
        """Called a few times a second."""
