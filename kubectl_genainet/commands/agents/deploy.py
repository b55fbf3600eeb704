"""`deploy`: puts the agent on the nodes of a cluster."""

from __future__ import annotations

import click
import yaml
from click.core import ParameterSource

from kubectl_genainet.commands.options import cluster_options, parse_seconds
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.user import Impersonation
from kubectl_genainet.render.data_text import json_text
from kubectl_genainet.render.deploy import StepLines
from kubectl_genainet.run.fleet.deploy import (
    NAMESPACE,
    DeployOptions,
    DeployTarget,
    RecordChoices,
    deploy,
    deploy_objects,
    parse_node_selector,
    parse_tolerations,
)


@click.command("deploy")
@click.option(
    "--image", default="", metavar="REF", help="The agent's image; default: the one scripts/build-image.sh tags."
)
@click.option("-n", "--namespace", default=NAMESPACE, show_default=True, help="Namespace of the agents.")
@click.option("--node-selector", default="", metavar="KEY=VALUE,…", help="Only nodes with these labels.")
@click.option(
    "--tolerations",
    default="all",
    show_default=True,
    metavar="KEY[=VALUE][:EFFECT],…",
    help="Taints to run in spite of; also all and none.",
)
@click.option(
    "--metrics",
    is_flag=True,
    help="Always on: Prometheus metrics on the agents' port 9913, and names for what they count.",
)
@click.option(
    "--otlp-endpoint", default="", metavar="URL", help="Always on: flows as logs to an OpenTelemetry Collector."
)
@click.option(
    "--record",
    is_flag=True,
    help="Always on: each node records what fails, so that it can be asked for later (--since, --at).",
)
@click.option(
    "--record-size",
    default="256Mi",
    show_default=True,
    metavar="SIZE",
    help="With --record: what it may take on a node.",
)
@click.option(
    "--record-for", default="24h", show_default=True, metavar="TIME", help="With --record: how far back it reaches."
)
@click.option(
    "--record-dns",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="With --record: off hashes the names that are looked up.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every agent is ready.")
@click.option(
    "--timeout",
    default="120s",
    show_default=True,
    help="How long to wait: for what an undeploy is still removing, then for the agents.",
)
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    show_default=True,
    help="client: print the objects; server: let the server check them; neither changes anything.",
)
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), help="Format of --dry-run=client.")
@cluster_options
def command(
    image: str,
    namespace: str,
    node_selector: str,
    tolerations: str,
    metrics: bool,
    otlp_endpoint: str,
    record: bool,
    record_size: str,
    record_for: str,
    record_dns: str,
    wait: bool,
    timeout: str,
    dry_run: str,
    output: str | None,
    context: str,
    kubeconfig: str,
    user: Impersonation,
) -> None:
    """Put the agent on the nodes of a cluster; can be repeated, and changes only what differs.

    \b
    Examples:
      kubectl genainet deploy --image registry.example/genainet-agent:v0.1.0
      kubectl genainet deploy --node-selector nvidia.com/gpu.present=true
      kubectl genainet deploy --metrics --otlp-endpoint http://collector.monitoring.svc:4318
      kubectl genainet deploy --record --record-for 48h --record-size 512Mi
      kubectl genainet deploy --dry-run=client -o yaml | kubectl diff --server-side -f -
    """
    _check_needs_record(record)
    chosen = RecordChoices(record_size, record_for, record_dns == "on") if record else None
    selector = parse_node_selector(node_selector)
    options = DeployOptions(
        image, namespace, selector, parse_tolerations(tolerations), metrics, otlp_endpoint=otlp_endpoint, record=chosen
    )
    if dry_run == "client":
        _print_objects(options, output or "yaml")
        return
    deploy(
        options,
        DeployTarget(context, kubeconfig, user, parse_seconds(timeout), wait),
        StepLines(dry_run=dry_run == "server"),
        dry_run=dry_run == "server",
    )


def _check_needs_record(record: bool) -> None:
    """Raises InputError for an option of the recorder where none is asked for: it would do nothing."""
    context = click.get_current_context()
    given_options = [
        f"--{name.replace('_', '-')}"
        for name in ("record_size", "record_for", "record_dns")
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
    ]
    if given_options and not record:
        raise InputError("nothing is recorded without --record", field=given_options[0])


def _print_objects(options: DeployOptions, output: str) -> None:
    objects = deploy_objects(options)
    if output == "json":
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        click.echo(json_text(listed, indent=2))
    elif output == "yaml":
        click.echo(yaml.safe_dump_all(objects, sort_keys=False, width=120), nl=False)
    else:
        raise GenainetError(f"no such format: {output}")
