"""`drops`: what is being dropped now, where and why."""

from __future__ import annotations

from typing import Any

import click

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.commands.live import Watch, replay, watch_live, watch_options
from kubectl_genainet.commands.options import FOUND, OK, TIMED_OUT, Source, output_option, source_options
from kubectl_genainet.commands.source import default_namespace, load_snapshot
from kubectl_genainet.context.account import Account
from kubectl_genainet.context.scope import Scope
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.drops.summary import summary_of
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.events import ClusterChanged, Event, Progress
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.drops import DropsView, make_view
from kubectl_genainet.wire import FilterEntry, TraceRequest


@click.command("drops")
@click.argument("target", required=False)
@click.option("--all", "everything", is_flag=True, help="Also packets that are freed without anything being lost.")
@watch_options("30s")
@output_option("table", "wide", "json", "yaml")
@source_options()
def command(source: Source, target: str | None, everything: bool, timeout: float, output: str, **options: Any) -> int:
    """Show what is being dropped now, where and why.

    TARGET is svc/NAME[:PORT], pod/NAME, deploy/NAME or IP[:PORT]; without one, all pods and Services of the namespace,
    with -A all packets of all nodes. Packets are counted in the kernel; resets, retransmits, full listen queues and
    ICMP errors are counted beside them.

    \b
    Examples:
      kubectl genainet drops
      kubectl genainet drops -A --timeout 5m
      kubectl genainet drops svc/my-llama-svc -n prod -o wide
      kubectl genainet drops -A -o json | jq 'select(.policy.agreement == "api-admits")'
      kubectl genainet drops --record incident.gnb
      kubectl genainet drops --from incident.gnb

    Exit status: 0 nothing that is wrong was seen, 1 something was, 2 the command failed, 124 the time ran out before any
    node was watched.
    """
    if target and source.all_namespaces:
        raise InputError("a TARGET and -A exclude each other")
    wanted = parse_target(target) if target else None
    bundle = read_bundle(source.bundle) if source.bundle else None
    snapshot = bundle.snapshot if bundle else load_snapshot(source)
    scope = Scope(wanted, "" if source.all_namespaces else default_namespace(source), snapshot)
    view = make_view(output, str(scope), live=bundle is None)
    run = DropsRun(DropCorrelator(snapshot, scope.concerns, everything=everything), scope, view)
    for warning in scope.warnings:
        view.warn(warning)
    if bundle is not None:
        return replay(run, bundle, "drops")
    arguments = {"target": str(scope), "timeout": timeout, "all": everything}
    watch = Watch(source, "drops", arguments, timeout, node=options["node"], record=options["record"])
    request = TraceRequest(
        filters=scope.filters,
        probes=("drops",),
        timeout_s=timeout,
        options={"everything": "true"} if everything else {},
    )
    return watch_live(run, snapshot, watch, lambda _: request)


class DropsRun:
    """One run of the command: records in, rows to the view, an exit status out."""

    def __init__(self, correlator: DropCorrelator, scope: Scope, view: DropsView) -> None:
        self.correlator, self.scope, self.view = correlator, scope, view
        self.account = Account()
        self.rows = Rows(correlator)
        self._attached = False
        view.source = self.rows.build

    @property
    def filters(self) -> tuple[FilterEntry, ...]:
        return self.scope.filters

    def take(self, event: Event) -> None:
        """One record, live or replayed: the same way."""
        self.account.event(event)
        if isinstance(event, ClusterChanged):
            self.scope.update(event.snapshot)
        self._attached = self._attached or (isinstance(event, Progress) and event.stage == "attached")
        self.view.event(event)
        self.correlator.feed(event)

    def finish(self, *, live: bool) -> int:
        rows = self.rows.build()
        summary = summary_of(str(self.scope), rows, self.correlator, self.account)
        self.view.finish(rows, summary)
        if live and not self._attached:
            return TIMED_OUT
        return FOUND if any(f.severity.rank >= Severity.WARNING.rank for f in summary.findings) else OK
