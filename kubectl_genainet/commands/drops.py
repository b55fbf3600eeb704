"""`drops`: what is being dropped now, where and why."""

from __future__ import annotations

from functools import partial

import click

from kubectl_genainet.commands.options import output_option, source_options, watch_options
from kubectl_genainet.commands.options.report import report_option, reported
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.document.reporting import DropsReporting
from kubectl_genainet.render.drops.views import VIEWS
from kubectl_genainet.render.live import make_view
from kubectl_genainet.render.screen.run import on_screen
from kubectl_genainet.run.drops import DropsOptions, drops
from kubectl_genainet.run.sources.base import Source


@click.command("drops")
@click.argument("target", required=False)
@click.option("--all", "everything", is_flag=True, help="Also packets that are freed without anything being lost.")
@watch_options("30s")
@report_option
@output_option(*VIEWS, "yaml", "name", templates=True)
@source_options(past=True)
def command(
    source: Source,
    target: str | None,
    everything: bool,
    timeout: float,
    output: str,
    node: str,
    record: str,
    report: str,
) -> ExitStatus:
    """Show what is being dropped now, where and why.

    TARGET is svc/NAME[:PORT], pod/NAME, deploy/NAME or IP[:PORT] (pod/NAMESPACE/NAME for another namespace); without one, all
    pods and Services of the namespace, with -A all packets of all nodes. Packets are counted in the kernel; resets,
    retransmits, full listen queues and ICMP errors are counted beside them.

    \b
    Examples:
      kubectl genainet drops
      kubectl genainet drops -A --timeout 5m
      kubectl genainet drops svc/my-llama-svc -n prod -o wide
      kubectl genainet drops -A -o json | jq 'select(.policy.agreement == "api-admits")'
      kubectl genainet drops -A --report drops.html
      kubectl genainet drops -A --since 30m --until 10m
      kubectl genainet drops --record incident.gnb
      kubectl genainet drops --from incident.gnb

    Exit status: 0 nothing that is wrong was seen, 1 something was, 2 the command failed, 124 the time ran out before any
    node was watched.
    """
    chosen = DropsOptions(everything, timeout, node, record)
    shown = reported(partial(make_view, VIEWS, output), DropsReporting, report)
    about = parse_target(target) if target else None
    return on_screen(lambda make: drops(source, about, chosen, make), shown, wanted=source.live and output == "table")
