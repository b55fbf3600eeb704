"""`rules`: what kube-proxy has programmed for a Service on each node, and whether it is what the API says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kubectl_genainet.commands.options import (
    Messages,
    MessagesOnce,
    output_option,
    read_argument,
    say_moment,
    show_each,
    source_options,
    watch_option,
)
from kubectl_genainet.commands.options.report import report_option
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.proxy.batch import FlowResult
from kubectl_genainet.proxy.report import RulesReport
from kubectl_genainet.proxy.ruleset import parse_ruleset
from kubectl_genainet.proxy.walked import FlowWalk
from kubectl_genainet.render.data_text import yaml_text
from kubectl_genainet.render.document.markdown import markdown
from kubectl_genainet.render.document.reporting import write_report
from kubectl_genainet.render.live import record_writer
from kubectl_genainet.render.rules.document import rules_document
from kubectl_genainet.render.rules.firewall import host_firewall_text
from kubectl_genainet.render.rules.table import (
    exact_table,
    flows_table,
    ipsets_table,
    rules_records,
    rules_table,
    rules_tree,
)
from kubectl_genainet.render.rules.walk import walk_tree
from kubectl_genainet.render.text import make_console
from kubectl_genainet.run.rules import (
    Dumps,
    RulesOptions,
    evaluate_lines,
    exact_rules,
    host_firewalls,
    programmed,
    rules,
    saved_dumps,
    walked,
)
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.cluster import ClusterSource
from kubectl_genainet.run.sources.dumps import folder_dumps
from kubectl_genainet.run.watch import watched_source
from kubectl_genainet.shell import sh

_WITH_CONNECTIONS = ("wide", "json", "yaml")  # outputs that show how many connections conntrack holds


@click.command("rules")
@click.argument("target", required=False, metavar="[TARGET | why FLOW]")
@click.argument("flow", nargs=-1, metavar="")
@click.option(
    "--ruleset",
    "files",
    multiple=True,
    type=click.Path(),
    metavar="FILE|DIR",
    help="Read a saved dump (- is standard input), or every dump in a folder (a sosreport), instead of nodes; several are one "
    "node's.",
)
@click.option(
    "--flows", type=click.Path(), metavar="FILE", help="Evaluate flows, one JSON object a line, through the rules."
)
@click.option("--node", default="", help="Only this node; with --ruleset, the node that the dumps are of.")
@click.option(
    "--hits", type=float, metavar="SECONDS", help="Read the counters twice, so far apart; show what came between."
)
@click.option(
    "--exact",
    type=float,
    metavar="SECONDS",
    help="Have the nodes' kernels name the rules that the Service's packets meet, for so long. Changes the nodes "
    "while it runs (an nft table, or TRACE rules), and undoes it.",
)
@click.option(
    "--host-firewall",
    "firewall",
    is_flag=True,
    help="Say what of the Service's traffic the node's own firewall refuses (ufw, firewalld, Docker, nft, iptables), and "
    "the smallest change that lets it through, tried on a copy of the rules. Nothing is changed.",
)
@watch_option("Then show the rules again when they, or what is wrong with them, change, until Ctrl-C.")
@report_option
@output_option("table", "wide", "tree", "markdown", "json", "yaml", "name", templates=True)
@source_options(live=True, manifests=True, past=True)
def command(source: Source, **arguments: Any) -> ExitStatus:
    """Show what kube-proxy has programmed for a Service on each node.

    For each node and address: the chain that takes it, the endpoints behind it against those of the EndpointSlices,
    and how often the rules were hit. Works for the iptables, nftables and IPVS modes. Exit status 1: the rules are
    not what the API says. With --flows nothing is judged: each flow's verdict is the answer, and the status is 0.

    `rules why FLOW` shows one flow's walk through the rules, chain by chain, with each rule's counters; what decided is
    marked. FLOW is SRC DST:PORT[/PROTOCOL] (addresses, pod/[NAMESPACE/]NAME, svc/NAME[:PORT]) or one JSON object as --flows
    reads it.

    \b
    Examples:
      kubectl genainet rules svc/my-llama-svc
      kubectl genainet rules svc/my-llama-svc -o tree --hits 10
      kubectl genainet rules svc/my-llama-svc --exact 10
      kubectl genainet rules --ruleset iptables-save.txt
      kubectl genainet rules svc/my-llama-svc --ruleset iptables-save.txt --manifests cluster.yaml
      kubectl genainet rules why pod/rag-app-0 svc/my-llama-svc --node node-1
      kubectl genainet rules why 10.244.1.7 10.96.0.10:53/UDP --ruleset iptables-save.txt
      kubectl genainet rules svc/my-llama-svc --report rules.html
      kubectl genainet rules svc/my-llama-svc --at 03:12
      kubectl genainet rules svc/my-llama-svc --watch
      kubectl genainet rules svc/my-llama-svc --host-firewall
      kubectl genainet rules --ruleset nft.json --flows flows.ndjson -o json
    """
    request = _Request(**arguments)
    request.check(source)
    say_moment(source)
    messages, output = MessagesOnce(), request.output
    if request.exact is not None:
        return _exact(source, request, messages)
    if request.firewall:
        return _firewalls(source, request, messages)
    if request.asks_why:
        _show_walks(walked(request.state(source), request.flow, request.options(source), messages.warn), output)
    elif request.flows is not None:
        lines = read_argument(request.flows).splitlines()
        results = evaluate_lines(request.state(source), lines, request.flows, request.options(source), messages.warn)
        _show_flows(results, output)
    else:
        return _programmed(source, request, messages)
    return ExitStatus.OK.with_failures(bool(source.failed_nodes))


@dataclass(frozen=True, slots=True)
class _Request:
    """The command's arguments, as they were given."""

    target: str | None
    flow: tuple[str, ...]
    files: tuple[str, ...]
    flows: str | None
    node: str
    hits: float | None
    exact: float | None
    firewall: bool
    watch: bool
    report: str
    output: str

    @property
    def asks_why(self) -> bool:
        return self.target == "why"

    @property
    def of_single_flows(self) -> bool:
        """Whether something else is asked than what is programmed."""
        return self.asks_why or self.flows is not None or self.firewall or self.exact is not None

    @property
    def parsed(self) -> Target | None:
        return parse_target(self.target) if self.target and not self.asks_why else None

    def check(self, source: Source) -> None:
        """Raises UsageError, or GenainetError, for arguments that do not go together."""
        if (self.report or self.output == "markdown") and self.of_single_flows:
            raise click.UsageError("--report and -o markdown show what is programmed, not single flows")
        if self.asks_why and not self.flow:
            raise click.UsageError("FLOW is missing: rules why SRC DST:PORT")
        if self.watch and not source.live:
            raise click.UsageError("--watch looks at live nodes again and again: leave out --from and --manifests")
        if self.watch and (self.of_single_flows or self.files or self.report):
            raise click.UsageError(
                "--watch shows what is programmed on live nodes: leave out --ruleset, --report and what is of single flows"
            )
        if self.flow and not self.asks_why:
            raise click.UsageError(f"unexpected argument {self.flow[0]!r}; a flow's walk is shown by `rules why FLOW`")
        if self.exact is not None and (self.parsed is None or self.files or not source.live):
            target = self.target if self.parsed is not None else "TARGET"
            hint = f"kubectl genainet rules {sh(target)} --exact {self.exact:g}"
            raise GenainetError(
                "--exact needs a target and live nodes",
                hint=hint if self.parsed is not None else f"{hint}, with svc/ and the Service's name for TARGET",
            )
        if self.firewall and self.parsed is None:
            raise click.UsageError("--host-firewall needs a target")

    def state(self, source: Source) -> Source | None:
        """With saved dumps the API is read only where it was asked for: they may be of any cluster."""
        return None if self.files and isinstance(source, ClusterSource) else source

    def options(self, source: Source) -> RulesOptions:
        return RulesOptions(
            saved=_saved(self.files) if self.files else None,
            node=self.node,
            hits_s=self.hits or 0.0,
            # Rules of nftables and IPVS count nothing: there conntrack tells how many connections began between readings.
            conntrack=self.flows is None and (bool(self.hits) or self.output in _WITH_CONNECTIONS),
            namespace=source.namespace or "default",
        )


def _programmed(source: Source, request: _Request, messages: Messages) -> ExitStatus:
    """What is programmed, once or again and again."""
    options, target, output = request.options(source), request.parsed, request.output
    if target is None and not request.files:
        messages.say("no target given: showing all Services")
    name = request.target or ""
    if request.watch:
        answers = watched_source(
            source, lambda: rules(source, target, options, messages.warn), programmed, messages.warn
        )
        show_each(answers, lambda now: _show(now.report, now.dumps, output, name, saved=False))
    result = rules(request.state(source), target, options, messages.warn)
    try:
        _show(result.report, result.dumps, output, name, saved=bool(request.files))
    finally:  # also where nobody reads it to its end
        if request.report:
            write_report(request.report, rules_document(result.report, name))
            messages.say(f"report written to {request.report}")
    status = ExitStatus.FOUND if result.report.found_something else ExitStatus.OK
    return status.with_failures(bool(source.failed_nodes))


def _saved(names: tuple[str, ...]) -> Dumps:
    folders = [name for name in names if name != "-" and Path(name).is_dir()]
    files = [(name, read_argument(name)) for name in names if name not in folders]
    return saved_dumps(files, [dump for name in folders for dump in folder_dumps(Path(name))])


def _firewalls(source: Source, request: _Request, messages: Messages) -> ExitStatus:
    assert request.parsed is not None
    asked = host_firewalls(request.state(source), request.parsed, request.options(source), messages.warn)
    firewalls = list(asked)
    if not _written(firewalls, request.output):
        console = make_console()
        for firewall in firewalls:
            console.print(host_firewall_text(firewall), soft_wrap=True)
    status = ExitStatus.OK if all(firewall.verdict == "passes" for firewall in firewalls) else ExitStatus.FOUND
    return status.with_failures(bool(source.failed_nodes))


def _show_walks(walks: Iterator[FlowWalk], output: str) -> None:
    if not _written(walks, output):
        console = make_console()
        for walk in walks:
            console.print(walk_tree(walk))


def _exact(source: Source, request: _Request, messages: Messages) -> ExitStatus:
    assert request.parsed is not None and request.exact is not None
    counts = exact_rules(source, request.parsed, request.exact, messages)
    if not counts:
        messages.say(f"no packet of {request.target} met a rule within {request.exact:g} s")
    elif not _written(counts, request.output):
        make_console().print(exact_table(counts, wide=request.output in ("wide", "tree")))
    status = ExitStatus.OK if counts else ExitStatus.TIMED_OUT
    return status.with_failures(bool(source.failed_nodes))


def _show_flows(results: Iterator[FlowResult], output: str) -> None:
    if not _written(results, output):
        make_console().print(flows_table(results, wide=output in ("wide", "tree")))


def _show(report: RulesReport, dumps: Dumps, output: str, name: str, *, saved: bool) -> None:
    if output == "markdown":
        click.echo("\n".join(markdown(rules_document(report, name))))
        return
    rulesets = [
        parse_ruleset([d for d in node_dumps if d.source in ("ipset", "ipvs")]) for node_dumps in dumps.values()
    ]
    sets = [s for r in rulesets for s in r.ipsets] if saved else []
    if _written(rules_records(report, rulesets, sets), output):
        return
    console = make_console()
    if report.rows or report.findings or report.not_checked or not sets:
        console.print(
            rules_tree(report, name) if output == "tree" else rules_table(report, name, wide=output == "wide")
        )
    if sets:
        console.print(ipsets_table(sets))


def _written(records: Iterable[Any], output: str) -> bool:
    """Writes them as data, one by one; False for a format that is for people."""
    if output == "yaml":
        click.echo(yaml_text(records), nl=False)
        return True
    write = record_writer(output)
    if write is None:
        return False
    for record in records:
        write(record)
    return True
