"""`rules`: what kube-proxy has programmed for a Service on each node, and whether it is what the API says."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from kubectl_genainet.commands.options import FOUND, OK, TIMED_OUT, Source, output_option, source_options
from kubectl_genainet.commands.source import default_namespace, load_snapshot
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.proxy.batch import FlowRequest, FlowResult, evaluate_flows, read_flows
from kubectl_genainet.proxy.exact import exact_counts
from kubectl_genainet.proxy.forms import dumps_of
from kubectl_genainet.proxy.report import RulesReport, addresses_of, rules_report
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset
from kubectl_genainet.render.rules import exact_table, flows_table, ipsets_table, rules_table, rules_tree
from kubectl_genainet.render.text import make_console

Dumps = Mapping[str, Sequence[RulesetDump]]
_WITH_CONNECTIONS = ("wide", "json", "yaml")  # outputs that show how many connections conntrack holds


@click.command("rules")
@click.argument("target", required=False)
@click.option(
    "--ruleset",
    "files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Read a saved dump (- is standard input) instead of nodes; several are one node's.",
)
@click.option(
    "--flows", type=click.Path(), metavar="FILE", help="Evaluate flows, one JSON object a line, through the rules."
)
@click.option("--node", default="", help="Only this node.")
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
@output_option("table", "wide", "tree", "json", "yaml")
@source_options(live=True, manifests=True)
def command(
    source: Source,
    target: str | None,
    files: tuple[str, ...],
    flows: str | None,
    node: str,
    hits: float | None,
    exact: float | None,
    output: str,
) -> int:
    """Show what kube-proxy has programmed for a Service on each node.

    For each node and address: the chain that takes it, the endpoints behind it against those of the EndpointSlices,
    and how often the rules were hit. Works for the iptables, nftables and IPVS modes. Exit status 1: the rules are
    not what the API says. With --flows nothing is judged: each flow's verdict is the answer, and the status is 0.

    \b
    Examples:
      kubectl genainet rules svc/my-llama-svc
      kubectl genainet rules svc/my-llama-svc -o tree --hits 10
      kubectl genainet rules svc/my-llama-svc --exact 10
      kubectl genainet rules --ruleset iptables-save.txt
      kubectl genainet rules svc/my-llama-svc --ruleset iptables-save.txt --manifests cluster.yaml
      kubectl genainet rules --ruleset nft.json --flows flows.ndjson -o json
    """
    parsed = parse_target(target) if target else None
    if exact is not None:
        return _exact(source, parsed, files, exact, output)
    # The rules of nftables and IPVS count nothing: there conntrack tells how many connections began between readings.
    conntrack = flows is None and (bool(hits) or output in _WITH_CONNECTIONS)
    dumps = _saved(files) if files else _live(source, conntrack=conntrack)
    if node:
        dumps = _only(dumps, node)
    if flows is not None:
        requests = list(read_flows(_lines(flows), flows))
        _show_flows(_evaluate(dumps, requests, _node_ips(source, bool(files))), output)
        return OK
    earlier = dumps if hits else None
    if hits and (files or source.bundle):
        raise GenainetError("--hits needs live nodes: a saved dump has one reading of the counters")
    if hits:
        time.sleep(hits)
        dumps = _live(source, conntrack=conntrack)
        dumps = _only(dumps, node) if node else dumps
    snapshot = None if files and not (source.bundle or source.lab or source.manifests) else load_snapshot(source)
    if parsed is None and not files:
        click.echo("no target given: showing all Services", err=True)
    report = _report(source, snapshot, dumps, parsed, earlier)
    _show(report, dumps, output, saved=bool(files))
    return FOUND if report.found_something else OK


def _exact(source: Source, target: Target | None, files: Sequence[str], seconds: float, output: str) -> int:
    if target is None or files or source.bundle or source.manifests:
        raise GenainetError("--exact needs a target and live nodes", hint="kubectl genainet rules svc/NAME --exact 10")
    from kubectl_genainet.commands.agents import read_exact

    snapshot = load_snapshot(source)
    filters = addresses_of(snapshot, target, default_namespace(source))
    click.echo(f"tracing {', '.join(address_text(f.ip, f.port) for f in filters)} for {seconds:g} s", err=True)
    hits: Sequence[RuleHit] = read_exact(source, filters, seconds)
    counts = exact_counts(_live(source), hits)
    if output in ("json", "yaml"):
        items = [msgspec.to_builtins(count) for count in counts]
        if output == "yaml":
            _yaml(items)
        else:
            for item in items:
                click.echo(msgspec.json.encode(item))
    else:
        make_console().print(exact_table(counts, wide=output in ("wide", "tree")))
    return OK if counts else TIMED_OUT


def _report(
    source: Source, snapshot: ClusterSnapshot | None, dumps: Dumps, target: Target | None, earlier: Dumps | None
) -> RulesReport:
    namespace = (
        default_namespace(source) if target is not None and snapshot is not None else source.namespace or "default"
    )
    return rules_report(
        snapshot, dumps, target, namespace=namespace, earlier=earlier, node_ips=_node_ips(source, snapshot is None)
    )


def _saved(files: Sequence[str]) -> Dumps:
    dumps = [dump for name in files for dump in dumps_of(_read(name), name=name)]
    if errors := parse_ruleset(dumps).errors:
        raise GenainetError(f"can't read the dump: {'; '.join(errors)}", hint="Save it again; it may be cut short.")
    return {"": dumps}


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise GenainetError(f"can't read {name}: {error.strerror}") from None


def _lines(name: str) -> list[str]:
    return _read(name).splitlines()


def _live(source: Source, *, conntrack: bool = False) -> Dumps:
    """The nodes' dumps: recorded ones of a bundle, else the agents' own of this moment (with connections if asked)."""
    if source.bundle:
        from kubectl_genainet.bundle import read_bundle

        found: dict[str, list[RulesetDump]] = {}
        for event in read_bundle(source.bundle).events:
            if isinstance(event, RulesetDump):
                found.setdefault(event.node, []).append(event)
        if not found:
            raise GenainetError(
                f"the bundle {source.bundle} holds no rulesets", hint="Record one with --record, without --no-rulesets."
            )
        return found
    from kubectl_genainet.commands.agents import read_rulesets

    dumps: Dumps = read_rulesets(source, conntrack=conntrack)
    return dumps


def _only(dumps: Dumps, node: str) -> Dumps:
    if node not in dumps:
        raise GenainetError(f"no rules of a node {node}", hint="There are: " + ", ".join(sorted(dumps)))
    return {node: dumps[node]}


def _node_ips(source: Source, no_api: bool) -> Mapping[str, Sequence[str]]:
    """The nodes' own addresses: from their reports in a bundle, else as far as the API has them."""
    if source.bundle:
        from kubectl_genainet.bundle import read_bundle

        reports = [event for event in read_bundle(source.bundle).events if isinstance(event, NodeReport)]
        found = {r.node: [ip for ns in r.namespaces if ns.host for ip in ns.addresses] for r in reports}
        if found:
            return found
    if no_api and not source.bundle:
        return {}
    return {n.metadata.name: list(n.ips) for n in load_snapshot(source).nodes}


def _evaluate(
    dumps: Dumps, flows: Sequence[FlowRequest], node_ips: Mapping[str, Sequence[str]]
) -> Iterator[FlowResult]:
    for node, found in dumps.items():
        ruleset = parse_ruleset(found)
        _warn(ruleset)
        gc.disable()  # all that is made here stays until the end; the collector would only walk it, again and again
        yield from evaluate_flows(ruleset, flows, node_ips=node_ips.get(node), node=node)


def _warn(ruleset: Ruleset) -> None:
    for error in ruleset.errors:
        click.echo(f"warning: {ruleset.node or 'ruleset'}: {error}", err=True)


def _show_flows(results: Iterator[FlowResult], output: str) -> None:
    if output == "json":
        for result in results:
            click.echo(msgspec.json.encode(result))
    elif output == "yaml":
        _yaml(list(results))
    else:
        make_console().print(flows_table(results, wide=output in ("wide", "tree")))


def _show(report: RulesReport, dumps: Dumps, output: str, *, saved: bool) -> None:
    rulesets = [parse_ruleset([d for d in found if d.source in ("ipset", "ipvs")]) for found in dumps.values()]
    sets = [s for r in rulesets for s in r.ipsets] if saved else []
    if output in ("json", "yaml"):
        servers = [{"kind": "virtual-server", **msgspec.to_builtins(s)} for r in rulesets for s in r.virtual_servers]
        rest: list[Any] = [{"kind": "finding", **msgspec.to_builtins(f)} for f in report.findings]
        rest += [{"kind": "not-checked", **msgspec.to_builtins(n)} for n in report.not_checked]
        rest += servers + [{"kind": "ipset", **msgspec.to_builtins(s)} for s in sets]
        if output == "yaml":
            _yaml([*report.rows, *rest])
            return
        for item in [*report.rows, *rest]:
            click.echo(msgspec.json.encode(item))
        return
    console = make_console()
    if report.rows or report.findings or not sets:
        console.print(rules_tree(report) if output == "tree" else rules_table(report, wide=output == "wide"))
    if sets:
        console.print(ipsets_table(sets))


def _yaml(items: Sequence[Any]) -> None:
    click.echo(yaml.safe_dump_all([msgspec.to_builtins(item) for item in items], sort_keys=False), nl=False)
