"""`explain`: whether policies admit a flow, why, and what would admit it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import IO

import click
from rich.console import Console

from kubectl_genainet.commands.options import (
    Messages,
    output_option,
    say_moment,
    show_each,
    source_options,
    watch_option,
)
from kubectl_genainet.commands.options.policies import enforcer_option
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.policy.enforcers import Enforcer
from kubectl_genainet.render.live import record_writer
from kubectl_genainet.render.policy.circumstances import circumstances_json, print_circumstances, print_enforcer
from kubectl_genainet.render.policy.json import FlowJson, explained_json, flow_json
from kubectl_genainet.render.policy.text import (
    added_label_lines,
    grouped,
    isolates_text,
    origin_lines,
    patch_yaml,
    print_explanation,
    print_no_patch,
    print_patch,
)
from kubectl_genainet.render.text import make_console, tell
from kubectl_genainet.run.policies.explain import FlowsBetween, JudgedFlow, warn_of_unknown
from kubectl_genainet.run.policies.flow_lines import LineAnswer, LineError, explain_lines
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.watch import watched_source


@click.command("explain")
@click.argument("source_target", metavar="SRC", required=False)
@click.argument("target", metavar="DST[:PORT]", required=False)
@click.option(
    "--protocol",
    type=click.Choice(("TCP", "UDP", "SCTP"), case_sensitive=False),
    help="Protocol of the flow. Default: TCP, or what the Service or pod declares.",
)
@click.option("--patch", "only_patch", is_flag=True, help="Print only the YAML that would admit the flow.")
@click.option(
    "--flows",
    type=click.File("r"),
    help="Judge one flow a line of a file (- for standard input): JSON, or SRC DST:PORT [PROTOCOL].",
)
@watch_option("Then show the answer again when it changes, until Ctrl-C.")
@enforcer_option
@output_option("text", "json", "yaml", templates=True)
@source_options(manifests=True, past=True)
def command(
    source: Source,
    source_target: str | None,
    target: str | None,
    protocol: str | None,
    only_patch: bool,
    flows: IO[str] | None,
    watch: bool,
    enforcer: str | None,
    output: str,
) -> ExitStatus:
    """Say whether policies admit a flow, why, and what is the smallest change that would.

    SRC is pod/NAME, deploy/NAME, svc/NAME or an IP address; DST also a domain name. pod/NAMESPACE/NAME names another
    namespace. A Service stands for its ready backends and target ports, a workload for its pods. Without a port, those that
    the pod declares are judged. A destination by name also needs DNS: the client's way to its resolver is judged too.

    \b
    Examples:
      kubectl genainet explain deploy/rag-app svc/my-llama-svc
      kubectl genainet explain pod/rag-app-0 pod/qdrant-0:6333 -n ai
      kubectl genainet explain deploy/rag-app huggingface.co:443
      kubectl genainet explain deploy/rag-app svc/qdrant --patch | kubectl diff -f -
      kubectl genainet explain deploy/rag-app svc/qdrant --watch
      kubectl genainet explain deploy/rag-app svc/qdrant --at 03:12
      kubectl genainet explain --manifests ./deploy deploy/rag-app svc/qdrant
      kubectl genainet explain --manifests ./deploy --flows flows.json -o json

    Exit status: 0 every flow passes, 1 one does not or it can't be told, 2 the command failed, or the answer hangs on a
    policy in the manifests that the API server would refuse.
    """
    say_moment(source)
    if flows is not None:
        if source_target or only_patch or watch:
            raise click.UsageError("--flows takes the flows from the file: give no SRC, DST, --patch or --watch")
        return _print_lines(source, flows, enforcer or "", output)
    if source_target is not None and target is None and len(ends := source_target.split()) == 2:
        source_target, target = ends  # in one pair of quotes
    if source_target is None or target is None:
        missing = "DST is" if source_target is not None else "SRC and DST are"
        raise click.UsageError(f"{missing} missing (or --flows FILE)")
    if watch and not source.live:
        raise click.UsageError("--watch asks a live cluster or lab again and again: leave out --from and --manifests")
    if watch and only_patch:
        raise click.UsageError("--watch does not go with --patch")
    explain = partial(FlowsBetween, source, source_target, target, protocol=protocol or "", enforcer=enforcer or "")
    if watch:
        answers = watched_source(source, explain, lambda answer: answer.flows, Messages().warn, nodes=False)
        show_each(answers, lambda between: _print(between, output))
    between = explain()
    warn_of_unknown(source, between.engine, Messages().warn)
    if only_patch:
        return _print_only_patch(between)
    _print(between, output)
    between.check_refused()
    return ExitStatus.OK if between.all_start else ExitStatus.FOUND


def _print(between: FlowsBetween, output: str) -> None:
    if write := record_writer(output):
        enforcer = between.engine.enforcer
        for flow in between.flows:
            patch = between.patch(flow.explanation.flow)
            no_patch = between.why_no_patch(flow.explanation, patch)
            write(explained_json(flow.explanation, flow.service, enforcer, flow.deviations, flow.dns, patch, no_patch))
        return
    console = make_console()
    print_enforcer(console, between.engine.enforcer)
    _print_flows(console, between.flows, between.engine.enforcer, between)


def _print_only_patch(between: FlowsBetween) -> ExitStatus:
    if between.all_admitted:
        for line in between.lookups_denied(None):
            tell(line)
        tell("The flow passes already: there is nothing to change.")
        return ExitStatus.OK if between.all_start else ExitStatus.FOUND
    option = between.patch_all()
    if option is None:
        between.check_refused()
        first = next(flow.explanation for flow in between.flows if not flow.admitted)
        why = between.why_no_patch(first, None) or "Run it without --patch: what is not evaluated is named there."
        raise GenainetError("no change of a policy was found that admits the flow", hint=why)
    click.echo(patch_yaml(option), nl=False)
    for line in (*added_label_lines(option), *origin_lines(option), *between.lookups_denied(option)):
        tell(line)
    if option.isolates:
        tell(isolates_text(option))
    if option.also_admits:
        tell(f"It also admits {len(option.also_admits)} other flows; without --patch they are listed.")
    between.check_refused()
    return ExitStatus.FOUND


def _print_lines(source: Source, lines: IO[str], enforcer: str, output: str) -> ExitStatus:
    status = ExitStatus.OK
    console, write = make_console(), record_writer(output)
    first = True
    for answer in explain_lines(source, lines, lines.name, Messages().warn, enforcer=enforcer):
        if isinstance(answer, LineError):
            tell(f"error: {answer.message}")
            if write is not None:
                write({"line": answer.line, "error": answer.message})
            status = ExitStatus.FAILED
            continue
        if write is not None:
            write(_line_json(answer))
        else:
            if first:
                print_enforcer(console, answer.enforcer)
                first = False
            _print_flows(console, answer.flows, answer.enforcer)
        if not answer.deciding.starts and status is ExitStatus.OK:
            status = ExitStatus.FOUND
    return status


def _line_json(answer: LineAnswer) -> FlowJson:
    """The answer of the flow that decides; with the number of flows, where a line stands for several."""
    deciding = answer.deciding
    value = flow_json(deciding.explanation)
    if deciding.dns is not None:
        value["dns"] = circumstances_json(answer.enforcer, deciding.deviations, deciding.dns)["dns"]
    if len(answer.flows) > 1:
        flow = deciding.explanation.flow
        value["from"], value["to"], value["flows"] = str(flow.source), str(flow.destination), len(answer.flows)
    return value


def _print_flows(
    console: Console,
    flows: Sequence[JudgedFlow],
    enforcer: Enforcer,
    between: FlowsBetween | None = None,
) -> None:
    about = {id(flow.explanation): flow for flow in flows}
    for group in grouped([(flow.explanation, flow.service) for flow in flows]):
        first, service = group[0]
        print_explanation(console, first, service, alike=len(group) - 1)
        print_circumstances(console, enforcer, about[id(first)].deviations, about[id(first)].dns)
        if between is not None:
            patch = between.patch(first.flow)
            if patch is not None:
                print_patch(console, patch)
            print_no_patch(console, between.why_no_patch(first, patch))
