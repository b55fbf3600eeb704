"""`explain`: whether policies admit a flow, why, and what would admit it."""

from __future__ import annotations

import json
import re
from typing import IO

import click
import msgspec

from kubectl_genainet.commands.options import FOUND, OK, Source, output_option, source_options
from kubectl_genainet.commands.source import default_namespace, engine_for, load_snapshot
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.policy import PolicyEngine, PolicyFlow, Verdict, ip_endpoint, patch, patch_all, pod_endpoint
from kubectl_genainet.policy.model import Explanation, PolicyEndpoint
from kubectl_genainet.policy.rules import PROTOCOLS
from kubectl_genainet.policy.targets import flows_between
from kubectl_genainet.policy.unevaluated import RefusedBy
from kubectl_genainet.render.policy.json import explanation_json, flow_json, patch_json
from kubectl_genainet.render.policy.text import grouped, patch_yaml, print_explanation, print_patch
from kubectl_genainet.render.text import make_console

# Its last part has a letter, so it is no address.
_DOMAIN = re.compile(r"([A-Za-z0-9_-]+\.)+(?=[0-9-]*[A-Za-z])[A-Za-z0-9-]+\.?(:\w+)?")


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
    "--flows", type=click.File("r"), help="Judge one flow a line (JSON) from a file, or - for standard input."
)
@output_option("text", "json")
@source_options(manifests=True)
def command(
    source: Source,
    source_target: str | None,
    target: str | None,
    protocol: str | None,
    only_patch: bool,
    flows: IO[str] | None,
    output: str,
) -> int:
    """Say whether policies admit a flow, why, and what is the smallest change that would.

    SRC is pod/NAME, deploy/NAME, svc/NAME or an IP address; DST also a domain name. A Service stands for its ready
    backends and target ports, a workload for its pods. Without a port, those that the pod declares are judged.

    \b
    Examples:
      kubectl genainet explain deploy/rag-app svc/my-llama-svc
      kubectl genainet explain pod/rag-app-0 pod/qdrant-0:6333 -n ai
      kubectl genainet explain deploy/rag-app huggingface.co:443
      kubectl genainet explain deploy/rag-app svc/qdrant --patch | kubectl diff -f -
      kubectl genainet explain --manifests ./deploy deploy/rag-app svc/qdrant
      kubectl genainet explain --manifests ./deploy --flows flows.json -o json

    Exit status: 0 every flow passes, 1 one does not or it can't be told, 2 the command failed, or the answer hangs on a
    policy in the manifests that the API server would refuse.
    """
    if flows is not None:
        if source_target or only_patch:
            raise click.UsageError("--flows takes the flows from the file: give no SRC, DST or --patch")
        return _batch(engine_for(load_snapshot(source)), flows, output)
    if source_target is None or target is None:
        raise click.UsageError("SRC and DST are missing (or --flows FILE)")
    ends = _end(source_target), _end(target)
    snapshot = load_snapshot(source)
    namespace = default_namespace(source)
    chosen = flows_between(snapshot, *ends, namespace=namespace, protocol=(protocol or "").upper())
    engine = engine_for(snapshot)
    if only_patch:
        return _print_only_patch(engine, [flow for flow, _ in chosen])
    return _explain(engine, chosen, output)


def _end(text: str) -> Target | str:
    """A target, or a domain name as text."""
    return text if _DOMAIN.fullmatch(text) else parse_target(text)


def _explain(engine: PolicyEngine, flows: list[tuple[PolicyFlow, str]], output: str) -> int:
    explained = [(engine.explain(flow), service) for flow, service in flows]
    if output == "json":
        for explanation, service in explained:
            found = patch(engine, explanation.flow)
            value = explanation_json(explanation, service)
            click.echo(json.dumps({**value, "patch": patch_json(found)} if found else value))
    else:
        console = make_console()
        for group in grouped(explained):
            first, service = group[0]
            print_explanation(console, first, service, alike=len(group) - 1)
            found = patch(engine, first.flow)
            if found is not None:
                print_patch(console, found)
    _check_refused(engine, [e for e, _ in explained])
    return OK if all(e.verdict is Verdict.ALLOW for e, _ in explained) else FOUND


def _check_refused(engine: PolicyEngine, explained: list[Explanation]) -> None:
    """Raises InputError where an answer hangs on a policy of a file that the API server would not take."""
    named = {n.policy for e in explained if e.verdict is Verdict.UNKNOWN for n in e.not_evaluated}
    for one in engine.unevaluated:
        if one.source and one.refused_by is RefusedBy.API and str(one.ref) in named:
            raise InputError(one.reason, source=one.source, obj=str(one.ref), field=one.field, hint=one.hint)


def _print_only_patch(engine: PolicyEngine, flows: list[PolicyFlow]) -> int:
    explained = [engine.explain(flow) for flow in flows]
    _check_refused(engine, explained)
    if all(e.verdict is Verdict.ALLOW for e in explained):
        click.echo("The flow passes already: there is nothing to change.", err=True)
        return OK
    option = patch_all(engine, [e.flow for e in explained if e.verdict is not Verdict.ALLOW])
    if option is None:
        raise GenainetError("no change of a policy was found that admits the flow", hint="Run it without --patch.")
    click.echo(patch_yaml(option), nl=False)
    if option.also_admits:
        click.echo(f"It also admits {len(option.also_admits)} other flows; without --patch they are listed.", err=True)
    return FOUND


def _batch(engine: PolicyEngine, lines: IO[str], output: str) -> int:
    status = OK
    console = make_console()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{lines.name}, line {number}"
        flow = _flow(line, where)
        try:
            explanation = engine.explain(flow)
        except InputError as error:
            raise InputError(error.message, source=where, hint=error.hint) from None
        if output == "json":
            click.echo(json.dumps(flow_json(explanation)))
        else:
            print_explanation(console, explanation)
        if explanation.verdict is not Verdict.ALLOW:
            status = FOUND
    return status


class _Line(msgspec.Struct, frozen=True):
    source: str = msgspec.field(name="from")
    to: str
    port: int
    protocol: str = "TCP"


def _flow(line: str, where: str) -> PolicyFlow:
    """A flow of the batch format; raises InputError that names the line."""
    try:
        read = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        raise InputError(
            str(error),
            source=where,
            hint='A line is {"from": "ns/pod" or "IP", "to": "ns/pod" or "IP", "protocol": "TCP", "port": 80}.',
        ) from None
    if not 1 <= read.port <= 65535:
        raise InputError(f"port {read.port} is not between 1 and 65535", source=where)
    if read.protocol not in PROTOCOLS:
        raise InputError(f"protocol {read.protocol!r} is none of {', '.join(PROTOCOLS)}", source=where)
    return PolicyFlow(_batch_end(read.source), _batch_end(read.to), read.protocol, read.port)


def _batch_end(text: str) -> PolicyEndpoint:
    namespace, slash, name = text.partition("/")
    return pod_endpoint(namespace, name) if slash else ip_endpoint(text)
