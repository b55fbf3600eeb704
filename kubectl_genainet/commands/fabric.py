"""`fabric`: which GPU pods talk by RDMA and which by kernel TCP, and what the RDMA devices do."""

from __future__ import annotations

import click

from kubectl_genainet.commands.options import Messages, duration_argument, output_option, source_options
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.render.fabric import print_fabric
from kubectl_genainet.render.live import record_writer
from kubectl_genainet.render.text import make_console
from kubectl_genainet.run.fabric import FabricOptions, fabric, status_of
from kubectl_genainet.run.sources.base import Source


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    value = duration_argument(text)
    if not 0.5 <= value <= 600:
        raise click.BadParameter(f"{text!r} is not a time from 500ms to 10m")
    return value


@click.command("fabric")
@click.argument("target", required=False, default="")
@click.option("--for", "seconds", default="5s", show_default=True, callback=_seconds, help="How long to measure.")
@output_option("table", "wide", "json", "yaml", templates=True)
@source_options()
def command(source: Source, target: str, seconds: float, output: str) -> ExitStatus:
    """Show which GPU pods talk by RDMA and which by kernel TCP, and what the RDMA devices count.

    TARGET is pod/[NAMESPACE/]NAME, job/NAME (also deploy/, sts/, lws/, …: its pods, whether they have GPUs or not) or node/NAME;
    without one, all GPU pods of the namespace, with -A of all. Each node is read twice: the counters of its RDMA devices
    and NICs, who holds queue pairs, and the bytes of the pods' TCP connections with each other.

    \b
    Examples:
      kubectl genainet fabric
      kubectl genainet fabric job/train-llama -n train --for 30s
      kubectl genainet fabric node/gpu-1 -o wide
      kubectl genainet fabric -A -o json | jq '.findings[]'

    Exit status: 0 nothing wrong was seen, 1 something was, 2 the command failed or a node did not answer.
    """
    messages = Messages()
    summary = fabric(source, FabricOptions(target, seconds), messages)
    for text in summary.warnings:
        messages.warn(text)
    write = record_writer(output)
    if write is not None:
        write(summary)
    else:
        print_fabric(make_console(), summary, wide=output == "wide")
    return status_of(summary, failed=bool(source.failed_nodes))
