"""`status`: the agents, node by node."""

from __future__ import annotations

import click
import msgspec
import yaml

from kubectl_genainet.commands.options import cluster_options, lab_option, output_option
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.run.fleet.deploy import NAMESPACE


@click.command("status")
@click.option(
    "-n",
    "--namespace",
    envvar="GENAINET_NAMESPACE",
    default=NAMESPACE,
    show_default=True,
    help="Namespace of the agents; also $GENAINET_NAMESPACE.",
)
@output_option("table", "wide", "json", "yaml", jsonpath=True)
@lab_option
@cluster_options
def command(namespace: str, output: str, lab: str | None, context: str, kubeconfig: str) -> ExitStatus:
    """Show the agents, node by node: whether they run and answer, what they can see, and what is wrong.

    \b
    Examples:
      kubectl genainet status
      kubectl genainet status -o wide
      kubectl genainet status --lab
      kubectl genainet status -o jsonpath='{.node} {.state}'
      kubectl genainet status -o json | jq -r 'select(.state != "ready") | .node'

    Exit status: 0 every node's agent answers, 1 one does not, 2 the command failed.
    """
    from kubectl_genainet.render.fleet import fleet_table
    from kubectl_genainet.render.jsonpath import jsonpath_writer
    from kubectl_genainet.render.text import make_console, printable, tell
    from kubectl_genainet.run.fleet.status import lab_fleet, status

    answer = lab_fleet(lab) if lab else status(namespace, context=context, kubeconfig=kubeconfig)
    for warning in answer.warnings:
        tell(f"warning: {printable(warning)}")
    match output:
        case "json":
            for node in answer.nodes:
                click.echo(msgspec.json.encode(node).decode())
        case _ if output.startswith("jsonpath="):
            write = jsonpath_writer(output)
            for node in answer.nodes:
                write(node)
        case "yaml":
            click.echo(yaml.safe_dump_all(msgspec.to_builtins(answer.nodes), sort_keys=False), nl=False)
        case _:
            make_console().print(fleet_table(answer.nodes, wide=output == "wide"))
            for hint in dict.fromkeys(node.hint for node in answer.nodes if node.hint):
                tell(f"  {printable(hint)}")
    return ExitStatus.FOUND if answer.found_something else ExitStatus.OK
