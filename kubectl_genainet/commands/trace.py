"""`trace`: the path of real packets through a Service."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from kubectl_genainet.commands.options import budget_option, output_option, parse_seconds, source_options, watch_options
from kubectl_genainet.commands.options.report import report_option, reported
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.results.path import Verdict
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.document.reporting import TraceReporting
from kubectl_genainet.render.live import make_view
from kubectl_genainet.render.screen.run import on_screen
from kubectl_genainet.render.trace.view import OUTPUTS, VIEWS
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.trace import CheckConnections, PathFilterTexts, TraceOptions, trace

FOLLOW_S = 3600.0  # the agents end a session after so long


@click.command("trace")
@click.argument("target", required=False)
@click.option(
    "--verdict",
    "verdicts",
    multiple=True,
    metavar="VERDICT[,…]",
    shell_complete=lambda _, __, start: [v.value for v in Verdict if v.value.startswith(start)],
    help="Only connections with this verdict: forwarded, dropped, rejected, unanswered, reset, unknown.",
)
@click.option(
    "--to",
    "servers",
    multiple=True,
    metavar="END",
    help="Only connections to this backend: pod/[NAMESPACE/]NAME, deploy/NAME, svc/NAME, ns/NAME, node/NAME, a CIDR or a label.",
)
@click.option("-l", "--selector", default="", help="Only connections with a pod of these labels at either end.")
@click.option("--last", type=click.IntRange(1, 1_000_000), metavar="N", help="Only the last N connections.")
@click.option("-f", "--follow", is_flag=True, help="A line a connection, as it is known, until Ctrl-C.")
@click.option("--each", is_flag=True, help="Show every connection by itself, not in groups.")
@click.option(
    "--from-pod",
    default="",
    metavar="pod/[NAMESPACE/]NAME",
    help="Only traffic of this client pod; with --check, where it connects from.",
)
@click.option(
    "--check", "--probe", "check", is_flag=True, help="Open check connections to the target, from the client pod."
)
@click.option("--path", default="", metavar="/PATH", help="With --check: send HTTP GETs for this path.")
@click.option(
    "--check-count",
    "--probe-count",
    "check_count",
    default=3,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="With --check: how many.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Have the nodes' kernels name the rules that the packets meet. Changes the nodes while it runs (an nft table, "
    "or TRACE rules), and undoes it.",
)
@click.option(
    "--http",
    is_flag=True,
    help="Read request line, status and content type of clear HTTP/1.1, so that the first token is told from the header "
    "before it, and the numbers of clear HTTP/2's streams. Never a query or a body.",
)
@click.option(
    "--slow",
    default="1s",
    show_default=True,
    help="Report a reply that starts later than this as slow, whatever the other backends do; 0s: never.",
)
@budget_option("following packets", "fewer connections are followed, each of them whole")
@watch_options("30s")
@report_option
@output_option(*OUTPUTS, "yaml", "name", templates=True)
@source_options(clients=True, past=True)
def command(source: Source, target: str | None, timeout: float, output: str, **options: Any) -> ExitStatus:
    """Show the path of real packets through a Service, hop by hop.

    TARGET is svc/NAME[:PORT], pod/NAME, deploy/NAME or IP[:PORT] (pod/NAMESPACE/NAME for another namespace); without one, all
    of the namespace. The traffic that is there is watched; --check makes some where there is none. Connections of the same
    workloads with the same outcome and cause are one block, failures first; --each, --follow and -o wide show them one by one.

    \b
    Examples:
      kubectl genainet trace svc/my-llama-svc
      kubectl genainet trace svc/my-llama-svc:http -n prod --from-pod pod/rag-app-0 --check --path /healthz
      kubectl genainet trace svc/my-llama-svc --timeout 10s -o json | jq 'select(.verdict != "forwarded")'
      kubectl genainet trace svc/my-llama-svc -o jsonpath='{.time} {.flow.client.pod} {.verdict}'
      kubectl genainet trace svc/my-llama-svc --record incident.gnb
      kubectl genainet trace svc/my-llama-svc --from incident.gnb
      kubectl genainet trace svc/my-llama-svc --verdict dropped,rejected --from deploy/rag-app
      kubectl genainet trace svc/my-llama-svc --to 10.244.3.0/24 --last 20 -o wide
      kubectl genainet trace -n prod -l app=rag --follow
      kubectl genainet trace svc/my-llama-svc --exact
      kubectl genainet trace svc/my-llama-svc --report trace.html
      kubectl genainet trace svc/my-llama-svc --since 2h
      kubectl genainet trace svc/my-llama-svc --lab

    Exit status: 0 nothing wrong with the connections asked for, 1 one was dropped, refused or slow, 2 the command
    failed, 124 no connection between the ends asked for was seen in time.
    """
    if options["path"] and not options["check"]:
        raise click.UsageError("--path goes with --check")
    if target is None and options["check"]:
        raise click.UsageError("--check needs a TARGET to connect to")
    follow, each = options["follow"], options["each"]
    chosen = TraceOptions(
        from_pod=options["from_pod"],
        check=CheckConnections(options["check_count"], options["path"]) if options["check"] else None,
        exact=options["exact"],
        http=options["http"],
        slow_s=0.0 if options["slow"] in ("0", "0s") else parse_seconds(options["slow"]),
        cpu_percent=options["budget"],
        timeout_s=FOLLOW_S if follow and given("timeout") is None else timeout,
        node=options["node"],
        record=options["record"],
        only=PathFilterTexts(
            verdicts=options["verdicts"],
            clients=options["clients"],
            servers=options["servers"],
            labels=options["selector"],
        ),
        last=options["last"],
    )
    if output == "tree" and (follow or each):
        output = "follow" if follow else "each"
    shown = reported(partial(make_view, VIEWS, output), TraceReporting, options["report"])
    about = parse_target(target) if target else None
    return on_screen(lambda make: trace(source, about, chosen, make), shown, wanted=source.live and output == "tree")


def given(name: str) -> object | None:
    """The value of an option where the command line gives it."""
    context = click.get_current_context()
    return context.params.get(name) if context.get_parameter_source(name) is ParameterSource.COMMANDLINE else None
