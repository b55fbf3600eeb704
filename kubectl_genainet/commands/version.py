"""`version`: the client's version, the API server's, and the agents' where a cluster answers."""

from __future__ import annotations

import click

from kubectl_genainet.commands.options import cluster_options, output_option
from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.user import Impersonation


@click.command("version")
@click.option("--client", "client_only", is_flag=True, help="Ask no cluster.")
@output_option("text", "json", "yaml", templates=True)
@cluster_options
def command(client_only: bool, output: str, context: str, kubeconfig: str, user: Impersonation) -> None:
    """Show the versions of the client, of the API server and of the agents; warns where they don't fit.

    Answers without a cluster too.

    \b
    Examples:
      kubectl genainet version
      kubectl genainet version --client -o json
    """
    from kubectl_genainet.render.live import record_writer
    from kubectl_genainet.render.text import printable, tell
    from kubectl_genainet.run.fleet.status import versions

    answer, warnings = versions(client_only=client_only, context=context, kubeconfig=kubeconfig, user=user)
    if write := record_writer(output):
        write(answer)
    else:
        click.echo(f"client {answer.client} (protocol {answer.protocol})")
        if answer.server:
            click.echo(f"server {printable(answer.server)}")
        for version, count in (answer.agents or {}).items():
            click.echo(f"agents {printable(version)} on {counted(count, 'node')}")
    for warning in warnings:
        tell(f"warning: {warning}")
