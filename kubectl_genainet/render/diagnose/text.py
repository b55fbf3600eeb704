"""A diagnosis as text, Markdown, JSON or YAML: causes first, then what was looked at, then what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.text import Text

from kubectl_genainet.model.finding import Severity, counted
from kubectl_genainet.model.results.diagnosis import Cause, CheckState, Conclusion
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.render.diagnose.document import document
from kubectl_genainet.render.diagnose.words import also_felt, headline, the_same_in, who
from kubectl_genainet.render.document.markdown import markdown
from kubectl_genainet.render.live import LiveView, record_writer
from kubectl_genainet.render.paragraphs import command_lines, hanging
from kubectl_genainet.render.text import CERTAINTY_STYLE, SEVERITY_STYLE, make_console, printable
from kubectl_genainet.trace.shown.groups import FAILED

_MARK = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "·"}
_STATE = {CheckState.FINE: "✓", CheckState.FAULTY: "✗", CheckState.NOT_CHECKED: "?"}
_STATE_STYLE = {CheckState.FINE: "green", CheckState.FAULTY: "bold red", CheckState.NOT_CHECKED: "yellow"}


class TextView:
    """For a terminal: fits the width, and keeps lines whole in a pipe."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()

    def show(self, conclusion: Conclusion) -> None:
        self._line(headline(conclusion), style="bold")
        for number, cause in enumerate(conclusion.causes, 1):
            self.console.print()
            self._cause(number, cause)
        self.console.print()
        numbers = {cause.title: number for number, cause in reversed(list(enumerate(conclusion.causes, 1)))}
        for item in conclusion.checked:
            why = f"cause {numbers[item.why]}" if item.why in numbers else item.why
            self._line(f"{_STATE[item.state]} {item.what:<10} {why}", style=_STATE_STYLE[item.state], hang=13)
        for note in conclusion.notes:
            self._line(f"· {note}", style="dim", hang=2)
        for command in conclusion.next:
            self._print(command_lines(f"next: {command}", self.console.width, style="bold"))

    def _cause(self, number: int, cause: Cause) -> None:
        self._line(f"{_MARK[cause.severity]} {number}. {cause.title}", style=SEVERITY_STYLE[cause.severity], hang=5)
        if hit := who(cause):
            self._line(hit, indent=5)
        for evidence in cause.evidence:
            text = Text(f"{printable(evidence.statement)} ")
            text.append(f"[{evidence.certainty.value}]", style=CERTAINTY_STYLE[evidence.certainty])
            self._print(hanging(text, self.console.width, indent=5, hang=2))
        if cause.elsewhere:
            self._line(the_same_in(cause), indent=5, hang=2)
        for symptom in cause.symptoms:
            self._line(also_felt(symptom), indent=5, style="dim", hang=2)
        if cause.remedy is not None:
            self._line(f"do: {cause.remedy.text}", indent=5, hang=4)
            self._print(
                line
                for command in cause.remedy.command.splitlines()
                for line in command_lines(command, self.console.width, indent=9)
            )
            if "--patch" not in cause.remedy.command.split():  # else the command prints the YAML, and a screen is short
                self._print(Text(f"{' ' * 9}{printable(line)}") for line in cause.remedy.yaml.splitlines())

    def _line(self, text: str, *, style: str = "", indent: int = 0, hang: int = 0) -> None:
        """A paragraph whose further lines are indented by `hang` more."""
        self._print(hanging(Text(printable(text), style=style), self.console.width, indent=indent, hang=hang))

    def _print(self, lines: Iterable[Text]) -> None:
        for line in lines:
            self.console.print(line, soft_wrap=True)


class MarkdownView:
    """For a ticket or a chat."""

    def show(self, conclusion: Conclusion) -> None:
        print("\n".join(markdown(document(conclusion))))


class DataView:
    def __init__(self, write: Callable[[object], None]) -> None:
        self._write = write

    def show(self, conclusion: Conclusion) -> None:
        self._write(conclusion)


class ConclusionView(LiveView):
    """Says what has been seen so far while the run goes on, and shows the conclusion at its end."""

    def __init__(self, output: str, watch_s: float, target: str, *, live: bool) -> None:
        super().__init__(target, live=live)
        self.in_place = output == "text"
        self._output, self.length_s = output, watch_s
        self._seen: Counter[str] = Counter()

    def path(self, path: PacketPath) -> None:
        self._seen["connections"] += 1
        self._seen["failed"] += path.verdict in FAILED

    def exchange(self, exchange: DnsExchange) -> None:
        self._seen["queries"] += 1

    def counts(self) -> tuple[str, ...]:
        counter = self._seen
        failed = f" ({counter['failed']} failed)" if counter["failed"] else ""
        connections = f"{counted(counter['connections'], 'connection')}{failed}"
        return connections, counted(counter["queries"], "DNS query")

    def finish(self, conclusion: Conclusion) -> None:
        self.screen.stop()
        shown(self._output).show(conclusion)


def shown(output: str) -> TextView | MarkdownView | DataView:
    write = record_writer(output)
    if write is not None:
        return DataView(write)
    match output:
        case "markdown":
            return MarkdownView()
        case _:
            return TextView()
