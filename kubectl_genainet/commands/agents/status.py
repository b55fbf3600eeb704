"""`status`: the agents, node by node."""

from __future__ import annotations

import click
import msgspec
import yaml

from kubectl_genainet import __version__
from kubectl_genainet.commands.options import cluster_options, output_option
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.kube.agents.base import NAMESPACE


@click.command("status")
@click.option(
    "-n",
    "--namespace",
    envvar="GENAINET_NAMESPACE",
    default=NAMESPACE,
    show_default=True,
    help="Namespace of the agents; also $GENAINET_NAMESPACE.",
)
@output_option("table", "wide", "json", "yaml")
@cluster_options
def command(namespace: str, output: str, context: str, kubeconfig: str) -> ExitStatus:
    """Show the agents, node by node: whether they run and answer, what they can see, and what is wrong.

    \b
    Examples:
      kubectl genainet status
      kubectl genainet status -o wide
      kubectl genainet status -o json | jq -r 'select(.state != "ready") | .node'

    Exit status: 0 every node's agent answers, 1 one does not, 2 the command failed.
    """
    from kubectl_genainet.kube.agents.fleet import fleet, skew
    from kubectl_genainet.kube.agents.survey import survey
    from kubectl_genainet.kube.client import connect
    from kubectl_genainet.render.fleet import fleet_table
    from kubectl_genainet.render.text import make_console, printable, tell

    found = survey(connect(context=context, kubeconfig=kubeconfig), namespace)
    for warning in (*found.warnings, skew(__version__, found.agents)):
        if warning:
            tell(f"warning: {printable(warning)}")
    rows = fleet(found.nodes, found.agents, found.answers, found.problems)
    match output:
        case "json":
            for row in rows:
                click.echo(msgspec.json.encode(row).decode())
        case "yaml":
            click.echo(yaml.safe_dump_all(msgspec.to_builtins(rows), sort_keys=False), nl=False)
        case _:
            make_console().print(fleet_table(rows, wide=output == "wide"))
            for hint in dict.fromkeys(row.hint for row in rows if row.hint):
                tell(f"  {printable(hint)}")
    return ExitStatus.FOUND if any(row.wrong for row in rows) else ExitStatus.OK
