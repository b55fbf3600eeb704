"""`mcp`: the verbs that only read, as tools for a program that speaks the Model Context Protocol."""

from __future__ import annotations

import click

from kubectl_genainet.commands.options import duration_argument, source_options
from kubectl_genainet.errors import ExitStatus, InputError
from kubectl_genainet.model.units import quantity
from kubectl_genainet.run.sources.choice import SourceChoice

MIN_BYTES = 4096


def _call_seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    seconds = duration_argument(text)
    if not 1 <= seconds <= 3600:
        raise click.BadParameter(f"{text!r} is not a time from 1s to 1h")
    return seconds


def _answer_bytes(_: click.Context, __: click.Parameter, text: str) -> int:
    size = int(quantity(text))
    if size < MIN_BYTES:
        raise click.BadParameter(f"{text!r} is not a size from 4Ki on, like 256Ki or 1Mi")
    return size


@click.command("mcp")
@click.option(
    "--timeout", "seconds", default="3m", show_default=True, callback=_call_seconds, help="How long one call may take."
)
@click.option(
    "--max-size",
    "max_bytes",
    default="256Ki",
    show_default=True,
    metavar="SIZE",
    callback=_answer_bytes,
    help="How large the records of one answer may be; what is wrong is kept first.",
)
@source_options(manifests=True, opened=False)
def command(choice: SourceChoice, seconds: float, max_bytes: int) -> ExitStatus:
    """Serve the read-only verbs to a program that speaks the Model Context Protocol, over standard input and output.

    The tools are diagnose, timeline, trace, drops, dns, explain, matrix, rules, fabric, doctor, status and version. Each answers
    with the records of -o json and their schema. Nothing changes the cluster: no deploy, no check connections, no exact
    tracing, no files. The facts come from the cluster, lab, bundle or manifests named here, with the rights of the
    kubeconfig; a client can't name another. Ends when standard input is closed, and on Ctrl-C.

    \b
    Examples:
      kubectl genainet mcp
      kubectl genainet mcp --context prod --as viewer -n ai
      kubectl genainet mcp --from incident.gnb
      kubectl genainet mcp --manifests ./deploy --timeout 30s --max-size 64Ki
      claude mcp add genainet -- kubectl genainet mcp --context prod
    """
    if "-" in choice.manifests:
        raise InputError("standard input carries the protocol", field="--manifests")
    from kubectl_genainet.mcp.server import Limits, serve

    serve(choice, Limits(seconds, max_bytes))
    return ExitStatus.OK
