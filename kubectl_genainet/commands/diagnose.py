"""`diagnose`: what is broken, for whom, because of what, and what to do, in one run."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from kubectl_genainet.commands import STARTED
from kubectl_genainet.commands.options import Messages, duration_argument, output_option, record_option, source_options
from kubectl_genainet.commands.options.report import report_option, reported
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.diagnose.text import ConclusionView
from kubectl_genainet.render.document.reporting import DiagnoseReporting
from kubectl_genainet.run.diagnose.diagnose import DiagnoseOptions, diagnose
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.timeline import timeline_of_recording

LONGEST_S = 600.0
ANSWER_S = 20.0  # after the command was given, unless --for says how long to watch


def _watch_time(_: click.Context, __: click.Parameter, text: str) -> float:
    seconds = duration_argument(text)
    if seconds < 1:
        raise click.BadParameter(f"{text!r} is not a time from 1s on")
    return seconds


@click.command("diagnose")
@click.argument("target", required=False)
@click.option("--from-pod", default="", metavar="pod/[NAMESPACE/]NAME", help="Only what this client pod does.")
@click.option(
    "--for",
    "--timeout",
    "watch_s",
    default="15s",
    show_default=True,
    metavar="TIME",
    callback=_watch_time,
    help="How long to watch; with --at or --since: how long a time. Without it a run whose agents take long to start watches "
    f"for a shorter time (8s at least), so that its answer is there {ANSWER_S:g}s after the command.",
)
@click.option("--node", default="", help="Only what this node sees.")
@record_option
@report_option
@output_option("text", "markdown", "json", "yaml", "name", templates=True)
@source_options(past=True, own_length="watch_s")
def command(source: Source, target: str | None, report: str, output: str, **options: Any) -> ExitStatus:
    """Say what is broken, for whom, because of what, and what to do.

    Watches the paths, the drops and the DNS of TARGET and its callers together (without TARGET: of the namespace), folds
    what was felt under its causes, and says what else was looked at and is fine. Ctrl-C concludes from what was seen so far.

    \b
    Examples:
      kubectl genainet diagnose svc/my-llama-svc
      kubectl genainet diagnose svc/my-llama-svc -n prod --for 1m -o markdown
      kubectl genainet diagnose svc/my-llama-svc --report incident.html
      kubectl genainet diagnose -n prod
      kubectl genainet diagnose deploy/rag-app --from-pod pod/chatbot-ui-0
      kubectl genainet diagnose svc/my-llama-svc --at 03:12 --for 10m
      kubectl genainet diagnose svc/my-llama-svc --record incident.gnb
      kubectl genainet diagnose svc/my-llama-svc --from incident.gnb

    Exit status: 0 nothing wrong was seen, 1 a cause was found, 2 the command failed, 124 nothing at all was seen.
    """
    if source.live and options["watch_s"] > LONGEST_S:
        raise click.BadParameter("a live run watches for at most 10m", param_hint="--for")
    wanted = parse_target(target) if target else None
    is_length_given = click.get_current_context().get_parameter_source("watch_s") is ParameterSource.COMMANDLINE
    due = 0.0 if is_length_given else STARTED + ANSWER_S
    chosen = DiagnoseOptions(options["from_pod"], options["watch_s"], options["node"], options["record"], due)
    with_timeline = partial(DiagnoseReporting, past=partial(timeline_of_recording, source, wanted, Messages()))
    shown = reported(partial(ConclusionView, output, chosen.watch_s), with_timeline, report)
    return diagnose(source, wanted, chosen, shown)
