"""`trace`: the path of real packets through a Service."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from kubectl_genainet.commands.options import output_option, parse_seconds, source_options, watch_options
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.trace.view import make_view
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.trace import CheckConnections, TraceOptions, trace


@click.command("trace")
@click.argument("target")
@click.option(
    "--from-pod",
    default="",
    metavar="pod/NAME",
    help="Only traffic of this client pod; with --probe, where it connects from.",
)
@click.option("--probe", is_flag=True, help="Open connections to the target from the client pod.")
@click.option("--path", default="", metavar="/PATH", help="With --probe: send HTTP GETs for this path.")
@click.option(
    "--probe-count", default=3, show_default=True, type=click.IntRange(1, 1000), help="With --probe: how many."
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
    "before it. Never a query or a body.",
)
@click.option(
    "--slow",
    default="1s",
    show_default=True,
    help="Replies that begin later than this are told as slow, whatever the other backends do; 0s: none.",
)
@click.option(
    "--budget",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 400),
    help="Per cent of one core that following packets may take on each node. Beyond it fewer connections are followed, "
    "each of them whole.",
)
@watch_options("30s")
@output_option("tree", "wide", "json", "yaml")
@source_options()
def command(source: Source, target: str, timeout: float, output: str, **options: Any) -> ExitStatus:
    """Show the path of real packets through a Service, hop by hop.

    TARGET is svc/NAME[:PORT], pod/NAME, deploy/NAME or IP[:PORT]. The traffic that is there is watched; --probe makes
    some where there is none.

    \b
    Examples:
      kubectl genainet trace svc/my-llama-svc
      kubectl genainet trace svc/my-llama-svc:http -n prod --from-pod pod/rag-app-0 --probe --path /healthz
      kubectl genainet trace svc/my-llama-svc --timeout 10s -o json | jq 'select(.verdict != "forwarded")'
      kubectl genainet trace svc/my-llama-svc --record incident.gnb
      kubectl genainet trace svc/my-llama-svc --from incident.gnb
      kubectl genainet trace svc/my-llama-svc --exact
      kubectl genainet trace svc/my-llama-svc --lab

    Exit status: 0 all seen arrived, 1 something was dropped, refused or slow, 2 the command failed, 124 nothing was
    seen in time.
    """
    if options["path"] and not options["probe"]:
        raise click.UsageError("--path goes with --probe")
    chosen = TraceOptions(
        from_pod=options["from_pod"],
        check=CheckConnections(options["probe_count"], options["path"]) if options["probe"] else None,
        exact=options["exact"],
        http=options["http"],
        slow_s=0.0 if options["slow"] in ("0", "0s") else parse_seconds(options["slow"]),
        cpu_percent=options["budget"],
        timeout_s=timeout,
        node=options["node"],
        record=options["record"],
    )
    return trace(source, parse_target(target), chosen, partial(make_view, output))
