"""`trace`: the path of real packets through a Service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.commands.live import Watch, replay, watch_live, watch_options
from kubectl_genainet.commands.options import FOUND, OK, TIMED_OUT, Source, output_option, source_options
from kubectl_genainet.commands.source import default_namespace, load_snapshot
from kubectl_genainet.context.targets import Resolved, resolve
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.events import ClusterChanged, Event, ProbeResult
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.target import TargetKind, parse_target, pod_named
from kubectl_genainet.render.trace.view import TraceView, make_view
from kubectl_genainet.trace.paths import PathCorrelator
from kubectl_genainet.trace.summary import SummaryBuilder, something_wrong
from kubectl_genainet.wire import FilterEntry, ProbeRequest, TraceRequest


@click.command("trace")
@click.argument("target")
@click.option(
    "--from-pod", metavar="pod/NAME", help="Only traffic of this client pod; with --probe, where it connects from."
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
@watch_options("30s")
@output_option("tree", "wide", "json", "yaml")
@source_options()
def command(source: Source, target: str, timeout: float, output: str, **options: Any) -> int:
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
    wanted = parse_target(target)
    if options["path"] and not options["probe"]:
        raise click.UsageError("--path goes with --probe")
    bundle = read_bundle(source.bundle) if source.bundle else None
    snapshot = bundle.snapshot if bundle else load_snapshot(source)
    resolved = resolve(wanted, snapshot, default_namespace(source))
    client = client_pod(options["from_pod"], snapshot, resolved.namespace)
    view = make_view(output, str(wanted), live=bundle is None)
    for warning in resolved.warnings:
        view.warn(warning)
    run = TraceRun(snapshot, resolved, client, view)
    if bundle is not None:
        return replay(run, bundle, "trace")
    request = TraceRequest(
        filters=resolved.filters,
        timeout_s=timeout,
        exact=options["exact"],
        probe=_probe_request(options, resolved, snapshot, client),
    )
    arguments = {"target": str(wanted), "timeout": timeout}
    ends = frozenset({client.spec.node_name}) | resolved.nodes if client is not None else frozenset()
    watch = Watch(source, "trace", arguments, timeout, options["node"], ends, options["record"])
    return watch_live(
        run,
        snapshot,
        watch,
        lambda node: _request_for(node, request, client),
        # 2.5 s after a probe's result, all that the probe causes has settled.
        enough=lambda event: 2.5 if isinstance(event, ProbeResult) else None,
    )


def client_pod(text: str | None, snapshot: ClusterSnapshot, namespace: str) -> Pod | None:
    """The pod behind --from-pod. Raises InputError, with near matches, where there is none."""
    if not text:
        return None
    target = parse_target(text if "/" in text else f"pod/{text}")
    if target.kind is not TargetKind.POD:
        raise InputError(f"--from-pod takes a pod, not {text}")
    return pod_named(snapshot, target.namespace or namespace, target.name)


def _probe_request(
    options: dict[str, Any], resolved: Resolved, snapshot: ClusterSnapshot, client: Pod | None
) -> ProbeRequest | None:
    if not options["probe"]:
        return None
    if client is None:
        candidates = [
            p for p in snapshot.pods if p.metadata.namespace == resolved.namespace and p.ips and not p.finished
        ]
        names = ", ".join(sorted(p.metadata.name for p in candidates)[:5])
        raise InputError(
            "--probe needs --from-pod: where shall the connection come from?", hint=f"For example one of {names}."
        )
    if not client.ips:
        raise InputError(f"pod {client.metadata.name} has no address yet")
    own, host, port = _probe_address(resolved, snapshot, client)
    header = resolved.target.name if resolved.target.kind is TargetKind.SERVICE else ""
    return ProbeRequest(
        from_ip=own,
        host=host,
        port=port,
        path=options["path"],
        host_header=header,
        count=options["probe_count"],
    )


def _probe_address(resolved: Resolved, snapshot: ClusterSnapshot, client: Pod) -> tuple[str, str, int]:
    """(the client's address, the target's address and port), of the first family that both have."""
    service = (
        snapshot.service(resolved.namespace, resolved.target.name)
        if resolved.target.kind is TargetKind.SERVICE
        else None
    )
    if resolved.target.kind is TargetKind.ADDRESS:
        addresses = {canonical_ip(resolved.target.name)}
    else:
        addresses = set(map(canonical_ip, service.cluster_ips)) if service else {ip for ip, _ in resolved.servers}
    usable = [e for e in resolved.filters if e.ip in addresses and e.port and e.protocol in ("", "TCP")]
    for own in client.ips:
        for entry in usable:
            if (":" in entry.ip) == (":" in own):
                return own, entry.ip, entry.port
    raise InputError(
        f"{resolved.target} has no TCP address and port that pod {client.metadata.name} could connect to",
        hint="Name the port: TARGET:PORT." if not usable else "They have no address family in common.",
    )


def _request_for(node: str, request: TraceRequest, client: Pod | None) -> TraceRequest:
    """Only the node of the client pod opens connections."""
    here = client is not None and client.spec.node_name == node
    return request if here or request.probe is None else msgspec.structs.replace(request, probe=None)


class TraceRun:
    """One run of the command: records in, paths to the view, an exit status out."""

    def __init__(self, snapshot: ClusterSnapshot, resolved: Resolved, client: Pod | None, view: TraceView) -> None:
        self.resolved, self.client, self.view = resolved, client, view
        self.correlator = PathCorrelator(snapshot, set(resolved.servers))
        self.summary = SummaryBuilder(str(resolved.target))

    @property
    def filters(self) -> tuple[FilterEntry, ...]:
        return self.resolved.filters

    def take(self, event: Event) -> None:
        """One record, live or replayed: the same way."""
        self.summary.event(event)
        if isinstance(event, ClusterChanged):
            self.resolved = resolve(self.resolved.target, event.snapshot, self.resolved.namespace)
            self.correlator.connections.servers = set(self.resolved.servers)
        self.view.event(event)
        self._show(self.correlator.feed(event))

    def _show(self, paths: Iterator[PacketPath]) -> None:
        for path in paths:
            if self._concerns(path):
                self.summary.path(path)
                self.view.path(path)

    def _concerns(self, path: PacketPath) -> bool:
        if not self.resolved.concerns(path):
            return False
        if self.client is None:
            return True
        client = path.flow.client
        return (client.namespace, client.pod) == (self.client.metadata.namespace, self.client.metadata.name)

    def finish(self, *, live: bool) -> int:
        self._show(self.correlator.finish())
        summary = self.summary.build(self.correlator.half_seen)
        self.view.finish(summary)
        if something_wrong(summary):
            return FOUND
        if summary.connections:
            return OK
        return TIMED_OUT if live else OK
