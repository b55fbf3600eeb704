"""`lab`: a cluster on this machine, with a real datapath."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from kubectl_genainet.commands.options import output_option, show_each, watch_option
from kubectl_genainet.model.results.lab import LabStatus
from kubectl_genainet.render.text import tell
from kubectl_genainet.run.fleet.lab import (
    DEFAULT_NAME,
    FAMILIES,
    OVERLAYS,
    PROXY_MODES,
    clear_incident,
    incidents,
    lab_down,
    lab_status,
    lab_up,
    labs,
    make_incident,
)
from kubectl_genainet.run.fleet.lab import execute as execute_in_pod

name_option = click.option("--lab", "--name", "name", default=DEFAULT_NAME, show_default=True, help="Name of the lab.")


@click.group("lab")
def command() -> None:
    """A cluster on this machine, with a real datapath.

    Nodes and pods are network namespaces; every packet crosses the real kernel, kube-proxy's rules and NetworkPolicies.
    The commands that read a cluster work on it with --lab. Needs root.

    \b
    Examples:
      kubectl genainet lab up
      kubectl genainet trace svc/my-llama-svc --lab
      kubectl genainet lab incident policy-drop
      kubectl genainet lab down
    """


@command.command("up", short_help="Bring a lab up: the chatbot, or manifests")
@name_option
@click.option("--nodes", default=3, show_default=True, help="Number of nodes.")
@click.option(
    "--proxy-mode",
    type=click.Choice(PROXY_MODES),
    default="iptables",
    show_default=True,
    help="Whose rules kube-proxy writes.",
)
@click.option(
    "--overlay",
    type=click.Choice(OVERLAYS),
    default="none",
    show_default=True,
    help="none: native routing between the nodes; vxlan: as flannel.",
)
@click.option(
    "--ip-family", type=click.Choice(list(FAMILIES)), default="ipv4", show_default=True, help="dual: IPv4 and IPv6."
)
@click.option(
    "--manifests",
    type=click.Path(file_okay=False, exists=True),
    metavar="DIR",
    help="Folder of Kubernetes YAML to run instead of the chatbot application.",
)
@click.option("--record", is_flag=True, help="Record what happens, so that it can be asked for later (--since, --at).")
def up(
    name: str, nodes: int, proxy_mode: str, overlay: str, ip_family: str, manifests: str | None, record: bool
) -> None:
    """Bring a lab up: the chatbot application, or that of --manifests.

    A lab that is up already is left alone, with an error.

    \b
    Examples:
      kubectl genainet lab up
      kubectl genainet lab up --proxy-mode nftables --ip-family dual
      kubectl genainet lab up --lab second --overlay vxlan --nodes 2
      kubectl genainet lab up --lab mine --manifests ./k8s
      kubectl genainet lab up --record
    """
    up = lab_up(
        name,
        tell,
        nodes=nodes,
        proxy_mode=proxy_mode,
        overlay=overlay,
        ip_family=ip_family,
        manifests=manifests or "",
        record=record,
    )
    tell(f"lab {name} is up: {up.nodes} nodes, {up.pods} pods, {up.seconds:.1f} s")
    tell(f"NetworkPolicies are enforced by {up.policy_enforcer}")


@command.command("down", short_help="Remove a lab, and nothing else")
@name_option
@click.option("--all", "all_labs", is_flag=True, help="All labs of this machine.")
def down(name: str, all_labs: bool) -> None:
    """Remove a lab: every process, network namespace, device and rule it made, and nothing else.

    Works as well after a `lab up` that was killed.

    \b
    Examples:
      kubectl genainet lab down
      kubectl genainet lab down --lab second
      kubectl genainet lab down --all
    """
    for each in lab_down(name, all_labs=all_labs):
        tell(f"lab {each} is down")


@command.command("status", short_help="Show a lab: modes, pods, agents, incidents")
@name_option
@watch_option("Then show it again when it changes, until Ctrl-C.")
@output_option("table", "wide", "json", "yaml", templates=True)
def status(name: str, watch: bool, output: str) -> None:
    """Show a lab: its modes, pods, agents and incidents. Exit status 1 where something of it is broken.

    \b
    Examples:
      kubectl genainet lab status
      kubectl genainet lab status --lab second -o wide
      kubectl genainet lab status --watch
    """
    from kubectl_genainet.render.lab import print_status
    from kubectl_genainet.render.live import record_writer
    from kubectl_genainet.run.watch import watched

    def show(lab: LabStatus) -> None:
        if write := record_writer(output):
            write(lab)
        else:
            print_status(lab, wide=output == "wide")

    if watch:
        show_each(watched(lambda: lab_status(name), lambda lab: lab), show)
    lab = lab_status(name)
    show(lab)
    click.get_current_context().exit(0 if lab.state == "up" else 1)


@command.command("list", short_help="List the labs of this machine")
@output_option("table", "json", "yaml", "name", templates=True)
def list_labs(output: str) -> None:
    """List the labs of this machine.

    \b
    Examples:
      kubectl genainet lab list
      kubectl genainet lab list -o name
    """
    from kubectl_genainet.render.lab import print_labs
    from kubectl_genainet.render.live import record_writer

    known = labs()
    if output == "table":
        print_labs(known)
    elif output == "name":
        click.echo("".join(f"{lab.name}\n" for lab in known), nl=False)
    elif write := record_writer(output):
        for lab in known:
            write(lab)


@command.command(
    "exec",
    short_help="Run a command in the network of a pod",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@name_option
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the pod.")
@click.argument("pod")
@click.argument("cmd", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, namespace: str, pod: str, cmd: tuple[str, ...]) -> None:
    """Run a command of this machine in a pod's network namespace, with the pod's resolv.conf.

    POD is NAME, pod/NAME or deploy/NAME (the first of its pods). The exit status is the command's.

    \b
    Examples:
      kubectl genainet lab exec deploy/chatbot-ui -- getent hosts my-llama-svc
      kubectl genainet lab exec -n kube-system deploy/coredns -- ss -lun
    """
    execute_in_pod(name, pod, cmd[1:] if cmd[0] == "--" and len(cmd) > 1 else cmd, namespace)


def _complete_incident(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(i.name, help=i.summary) for i in incidents() if i.name.startswith(incomplete)]


@command.command("incident", short_help="Make a fault, undo it, or list them")
@name_option
@click.option("--clear", is_flag=True, help="Undo the incident.")
@click.argument("incident", required=False, shell_complete=_complete_incident)
def incident(name: str, clear: bool, incident: str | None) -> None:
    """Make a fault in the lab, or undo it; without INCIDENT, list those there are.

    \b
    Examples:
      kubectl genainet lab incident
      kubectl genainet lab incident mtu-blackhole
      kubectl genainet lab incident mtu-blackhole --clear
    """
    from kubectl_genainet.render.lab import print_incidents

    if incident is None:
        print_incidents([(i.name, i.summary) for i in incidents()])
    elif clear:
        was_there = clear_incident(name, incident)
        tell(f"incident {incident} is {'cleared' if was_there else 'not in the lab'}")
    else:
        made = make_incident(name, incident)
        tell(f"incident {incident} is in the lab: {made.summary}", "", *made.description.split("\n"), "")
        option = "" if name == DEFAULT_NAME else f" --lab {name}"
        tell(f"Undo it: kubectl genainet lab incident {incident} --clear{option}")
