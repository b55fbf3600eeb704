"""`diagnose`: what is broken, for whom, because of what, and what to do, in one run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from kubectl_genainet.commands.options import Messages, duration_argument, output_option, source_options
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.files import write_whole
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.diagnose.text import make_view
from kubectl_genainet.run.diagnose.diagnose import DiagnoseOptions, diagnose, status_of
from kubectl_genainet.run.sources.base import Source

LONGEST_S = 600.0


def _watch_time(_: click.Context, __: click.Parameter, text: str) -> float:
    seconds = duration_argument(text)
    if seconds < 1:
        raise click.BadParameter(f"{text!r} is not a time from 1s on")
    return seconds


@click.command("diagnose")
@click.argument("target", required=False)
@click.option("--from-pod", default="", metavar="pod/NAME", help="Only what this client pod does.")
@click.option(
    "--for",
    "watch_s",
    default="15s",
    show_default=True,
    metavar="TIME",
    callback=_watch_time,
    help="How long to watch; with --at or --since: how long a time.",
)
@click.option("--node", default="", help="Only what this node sees.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True),
    default="",
    help="Also write an HTML page for the ticket.",
)
@output_option("text", "markdown", "json", "yaml")
@source_options(past=True, own_length="watch_s")
def command(
    source: Source, target: str | None, from_pod: str, watch_s: float, node: str, report: str, output: str
) -> ExitStatus:
    """Say what is broken, for whom, because of what, and what to do.

    Watches the paths, the drops and the DNS of TARGET and its callers together (without TARGET: of the namespace), folds
    what was felt under its causes, and says what else was looked at and is fine.

    \b
    Examples:
      kubectl genainet diagnose svc/my-llama-svc
      kubectl genainet diagnose svc/my-llama-svc -n prod --for 1m -o markdown
      kubectl genainet diagnose svc/my-llama-svc --report incident.html
      kubectl genainet diagnose -n prod
      kubectl genainet diagnose deploy/rag-app --from-pod pod/chatbot-ui-0
      kubectl genainet diagnose svc/my-llama-svc --at 03:12 --for 10m

    Exit status: 0 nothing wrong was seen, 1 a cause was found, 2 the command failed, 124 nothing at all was seen.
    """
    if source.live and watch_s > LONGEST_S:
        raise click.BadParameter("a live run watches for at most 10m", param_hint="--for")
    if report and not Path(report).absolute().parent.is_dir():
        raise GenainetError(f"{report}: there is no such folder")
    wanted = parse_target(target) if target else None
    conclusion = diagnose(source, wanted, DiagnoseOptions(from_pod, watch_s, node), Messages())
    make_view(output).show(conclusion)
    if report:
        _write(report, conclusion)
    return status_of(conclusion)


def _write(file: str, conclusion: Conclusion) -> None:
    from kubectl_genainet.render.diagnose.html import html

    page = html(conclusion, datetime.now(UTC).isoformat(timespec="seconds"))
    write_whole(file, page.encode(), "the report")
    Messages().say(f"report written to {file}")
