"""`timeline`: what was felt and what changed over a time that was recorded, and when it began."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kubectl_genainet.commands.options import Messages, output_option, source_options
from kubectl_genainet.commands.options.report import report_option
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.files import write_whole
from kubectl_genainet.model.results.timeline import Timeline
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.timeline.text import make_view
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.timeline import status_of, timeline


@click.command("timeline")
@click.argument("target", required=False)
@report_option
@output_option("text", "markdown", "json", "yaml", templates=True)
@source_options(past=True)
def command(source: Source, target: str | None, report: str, output: str) -> ExitStatus:
    """Show what was felt and what changed over a time that was recorded, and when it began.

    Failed connections, latency, name lookups, stalled streams and drops of TARGET (without one: of the namespace), beside
    rollouts, endpoints, policies, kube-proxy's rules, nodes and CoreDNS. The moment at which something became worse is found
    from the data; what changed just before is listed, what touches the target first. It is not thereby a cause.

    \b
    Examples:
      kubectl genainet timeline svc/my-llama-svc --since 6h
      kubectl genainet timeline svc/my-llama-svc --at 03:00 --for 1h --report timeline.html
      kubectl genainet timeline svc/my-llama-svc --since 1d --from clickhouse://clickhouse/genainet
      kubectl genainet timeline svc/my-llama-svc --from incident.gnb
      kubectl genainet timeline svc/my-llama-svc --from incident.gnb --report timeline.html
      kubectl genainet timeline -n prod --from incident.gnb -o json | jq '.onsets[0].suspects[].change.what'

    Exit status: 0 nothing became worse, 1 something did, 2 the command failed, 124 nothing is known of that time.
    """
    result = timeline(source, parse_target(target) if target else None, Messages())
    make_view(output).show(result)
    if report:
        _write(report, result)
    return status_of(result).with_failures(bool(source.failed_nodes))


def _write(file: str, result: Timeline) -> None:
    from kubectl_genainet.render.timeline.html import html

    page = html(result, datetime.now(UTC).isoformat(timespec="seconds"))
    write_whole(file, page.encode(), "the report")
    Messages().say(f"report written to {file}")
