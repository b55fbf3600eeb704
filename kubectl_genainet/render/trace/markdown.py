"""A trace as Markdown, for a ticket or a chat: a section a group, failures first, then the backends."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.render.document.markdown import markdown_text, printable_block
from kubectl_genainet.render.trace.blocks import block
from kubectl_genainet.render.trace.summary import BACKEND_COLUMNS, account
from kubectl_genainet.trace.shown.groups import Group, service_name

WIDTH = 10_000  # lines of a block stay whole


def trace_markdown(groups: list[Group], total: int, summary: TraceSummary) -> Iterator[str]:
    """The lines of the document."""
    failed = sum(group.count for group in groups if group.failed)
    yield f"# {markdown_text(summary.target)}: {failed} of {total} connections failed"
    for group in groups:
        clients, backend = ", ".join(group.clients), group.backend or "no backend"
        ends = " → ".join(part for part in (clients, service_name(group.service), backend) if part)
        yield from ("", f"## {group.verdict.value.upper()}: {markdown_text(ends)}", "", "```text")
        for line in block(group, total, WIDTH, hops=True).renderables:
            assert isinstance(line, Text)
            yield printable_block(line.plain.rstrip())
        yield "```"
    if summary.backends:
        yield from ("", f"| {' | '.join(c.title for c in BACKEND_COLUMNS)} |", "|---" * len(BACKEND_COLUMNS) + "|")
        for backend_summary in summary.backends:
            yield f"| {' | '.join(markdown_text(c.cell(backend_summary)) for c in BACKEND_COLUMNS)} |"
    yield from ("", markdown_text(account(summary)))
