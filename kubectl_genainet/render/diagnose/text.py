"""A diagnosis as text, Markdown, JSON or YAML: causes first, then what was looked at, then what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.text import Text

from kubectl_genainet.diagnose.timeline import FAILED
from kubectl_genainet.model.finding import Severity, counted
from kubectl_genainet.model.results.diagnosis import Cause, CheckState, Conclusion
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.render.live import LiveView, write_json, write_yaml
from kubectl_genainet.render.paragraphs import command_lines, hanging
from kubectl_genainet.render.text import CERTAINTY_STYLE, SEVERITY_STYLE, make_console, printable

REFRESH_S = 0.25
AT_START_S = 2.5  # what is seen so early was there before the watch began
_MARK = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "·"}
_STATE = {CheckState.FINE: "✓", CheckState.FAULTY: "✗", CheckState.NOT_CHECKED: "?"}
_STATE_STYLE = {CheckState.FINE: "green", CheckState.FAULTY: "bold red", CheckState.NOT_CHECKED: "yellow"}
STATE_WORDS = {CheckState.FINE: "fine", CheckState.FAULTY: "at fault", CheckState.NOT_CHECKED: "not checked"}


def headline(conclusion: Conclusion) -> str:
    """The result in one line."""
    causes = [c for c in conclusion.causes if c.severity is not Severity.INFO]
    seen = f"{counted(conclusion.connections, 'connection')} and {_queries(conclusion.queries)} in {conclusion.seconds:g} s"
    if causes:
        return f"{conclusion.target}: {counted(len(causes), 'cause')} found; {seen}"
    if not conclusion.connections and not conclusion.queries:
        return f"{conclusion.target}: nothing was seen in {conclusion.seconds:g} s, so nothing can be said"
    return f"{conclusion.target}: nothing wrong was seen; {seen}"


def who(cause: Cause) -> str:
    """Whom a cause hits, how much, and since when."""
    clients, backends = _listed(cause.clients), _listed(cause.backends)
    flow = f"{clients} → {backends}" if clients and backends else clients or backends
    noun = cause.unit.removesuffix("s") if cause.unit != "queries" else "query"
    amount = f"{cause.count} {cause.unit}" if cause.count != 1 else f"1 {noun}"
    parts = [flow, "" if cause.unit == "findings" else amount, since(cause)]
    return "; ".join(part for part in parts if part)


def since(cause: Cause) -> str:
    if cause.first_s is None:
        return ""
    return (
        "from the start of the watch"
        if cause.first_s <= AT_START_S
        else f"first seen {cause.first_s:.0f} s into the watch"
    )


def _listed(names: tuple[str, ...], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _queries(number: int) -> str:
    return "1 DNS query" if number == 1 else f"{number} DNS queries"


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
        for symptom in cause.symptoms:
            self._line(f"also felt: {symptom.title} ({symptom.count} {symptom.unit})", indent=5, style="dim", hang=2)
        if cause.remedy is not None:
            self._line(f"do: {cause.remedy.text}", indent=5, hang=4)
            self._print(
                line
                for command in cause.remedy.command.splitlines()
                for line in command_lines(command, self.console.width, indent=9)
            )
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
        print("\n".join(self._lines(conclusion)))

    def _lines(self, conclusion: Conclusion) -> Iterator[str]:
        yield f"# {markdown_text(headline(conclusion))}"
        for number, cause in enumerate(conclusion.causes, 1):
            yield from ("", f"## {number}. {markdown_text(cause.title)}", "", markdown_text(who(cause)), "")
            yield from (f"- {markdown_text(e.statement)} *[{e.certainty.value}]*" for e in cause.evidence)
            yield from (f"- also felt: {markdown_text(s.title)} ({s.count} {s.unit})" for s in cause.symptoms)
            if cause.remedy is not None:
                yield from ("", f"**Do:** {markdown_text(cause.remedy.text)}")
                for language, text in (("sh", cause.remedy.command), ("yaml", cause.remedy.yaml)):
                    if text:
                        yield from ("", f"```{language}", printable_block(text), "```")
        yield from ("", "| checked | | |", "|---|---|---|")
        yield from (f"| {c.what} | {STATE_WORDS[c.state]} | {markdown_text(c.why)} |" for c in conclusion.checked)
        if conclusion.notes or conclusion.next:
            yield ""
        yield from (f"- {markdown_text(note)}" for note in conclusion.notes)
        yield from (f"- next: `{printable(command)}`" for command in conclusion.next)


def printable_block(text: str) -> str:
    return "\n".join(printable(line).replace("```", "'''") for line in text.splitlines())


def markdown_text(text: str) -> str:
    """A sentence as Markdown text: what would be markup is escaped."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in printable(text))


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
        self.conclusion: Conclusion | None = None
        self._output, self._watch_s = output, watch_s
        self._seen: Counter[str] = Counter()
        self._attached_at: float | None = None

    def path(self, path: PacketPath) -> None:
        self._seen["connections"] += 1
        self._seen["failed"] += path.verdict in FAILED

    def exchange(self, exchange: DnsExchange) -> None:
        self._seen["queries"] += 1

    def refresh(self) -> None:
        if self.screen.due(REFRESH_S):
            self.screen.draw([self.state()])

    def state(self, *counts: str) -> Text:
        seen = self._seen
        failed = f" ({seen['failed']} failed)" if seen["failed"] else ""
        counts = (f"{counted(seen['connections'], 'connection')}{failed}", _queries(seen["queries"]))
        return super().state(f"of {self._watch_s:g} s", *counts)

    def finish(self, conclusion: Conclusion) -> None:
        self.screen.stop()
        self.conclusion = conclusion
        shown(self._output).show(conclusion)


def shown(output: str) -> TextView | MarkdownView | DataView:
    match output:
        case "json":
            return DataView(write_json)
        case "yaml":
            return DataView(write_yaml)
        case "markdown":
            return MarkdownView()
        case _:
            return TextView()
