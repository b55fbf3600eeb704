"""`explain`: whether policies admit a flow, why, and what would admit it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.target import Target, TargetKind, parse_target
from kubectl_genainet.policy import (
    Explanation,
    Option,
    Patch,
    Patcher,
    PolicyEngine,
    PolicyFlow,
    PolicyVerdict,
    ip_endpoint,
    patch_all,
    pod_endpoint,
)
from kubectl_genainet.policy.enforcers import Deviation, named_enforcer
from kubectl_genainet.policy.flows.arrival import explain_arriving
from kubectl_genainet.policy.flows.dns_way import DnsWay, dns_way
from kubectl_genainet.policy.flows.targets import flows_between
from kubectl_genainet.policy.left_out.unevaluated import RefusedBy
from kubectl_genainet.policy.model import Direction, PolicyEndpoint, domain_endpoint
from kubectl_genainet.policy.rules import PROTOCOLS
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source

_MOST_NAMED = 20
_DNS_PORT = 53
# Its last part has a letter, so it is no address.
_DOMAIN = re.compile(r"([A-Za-z0-9_-]+\.)+(?=[0-9-]*[A-Za-z])[A-Za-z0-9-]+\.?(:\w+)?")


@dataclass(frozen=True, slots=True)
class ExplainedFlow:
    """What the policies say of a flow. `service` is the Service that it was asked through, "" for none."""

    explanation: Explanation
    service: str = ""
    dns: DnsWay | None = None  # the client's way to its resolver, where the destination was given by name
    deviations: tuple[Deviation, ...] = ()  # of the enforcer, that decide it

    @property
    def admitted(self) -> bool:
        return self.explanation.verdict is PolicyVerdict.ALLOW


class FlowsBetween:
    """The flows from one end to another, explained; their patches are computed when they are asked for.

    An end is pod/NAME, deploy/NAME, svc/NAME or an IP address, the destination also a domain name. Raises InputError,
    with near matches, for what does not exist.
    """

    def __init__(self, source: Source, start: str, end: str, *, protocol: str = "", enforcer: str = "") -> None:
        ends = _end(start), _end(end)
        snapshot = source.snapshot()
        namespace = source.default_namespace
        chosen = flows_between(snapshot, *ends, namespace=namespace, protocol=protocol.upper())
        self.engine = PolicyEngine(snapshot, named_enforcer(enforcer) if enforcer else None)
        self._patcher = Patcher(self.engine)
        self._ways: dict[PolicyEndpoint, DnsWay | None] = {}
        by_name = isinstance(ends[1], str) or ends[1].kind is TargetKind.SERVICE
        self.flows = [self._explained(flow, service, by_name) for flow, service in chosen]

    def _explained(self, flow: PolicyFlow, service: str, by_name: bool) -> ExplainedFlow:
        explanation = explain_arriving(self.engine, flow, service)
        found = [self.engine.deviation(explanation, d) for d in Direction]
        way = None
        if by_name and flow.port != _DNS_PORT:
            if flow.source not in self._ways:
                self._ways[flow.source] = dns_way(self.engine, flow.source)
            way = self._ways[flow.source]
        return ExplainedFlow(explanation, service, way, tuple(dict.fromkeys(d for d in found if d is not None)))

    @property
    def all_admitted(self) -> bool:
        return all(flow.admitted for flow in self.flows)

    def check_refused(self) -> None:
        """Raises InputError where an answer hangs on a policy of a file that the API server would not take."""
        unknown = [f.explanation for f in self.flows if f.explanation.verdict is PolicyVerdict.UNKNOWN]
        named = {note.policy for explanation in unknown for note in explanation.not_evaluated}
        for one in self.engine.unevaluated:
            if one.source and one.refused_by is RefusedBy.API and str(one.ref) in named:
                raise InputError(one.reason, source=one.source, obj=str(one.ref), field=one.field, hint=one.hint)

    def patch(self, flow: PolicyFlow) -> Patch | None:
        """What would admit one flow; None where nothing is needed or nothing helps."""
        return self._patcher.patch(flow)

    def patch_all(self) -> Option | None:
        """One change that admits every flow that is not admitted now; None where none was found."""
        return patch_all(self.engine, [f.explanation.flow for f in self.flows if not f.admitted])


def warn_of_unevaluated(engine: PolicyEngine, warn: Warn) -> None:
    """Names the policies that are not evaluated."""
    for one in engine.unevaluated[:_MOST_NAMED]:
        warn(str(one))
    more = len(engine.unevaluated) - _MOST_NAMED
    if more > 0:
        warn(f"{more} more policies are not evaluated")


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that can't be judged; the others are."""

    line: int
    message: str


def explain_lines(
    source: Source, lines: Iterable[str], name: str, warn: Warn = lambda _: None, *, enforcer: str = ""
) -> Iterator[Explanation | LineError]:
    """Explains one flow a line, in JSON; a line that can't be read or judged is a LineError ("NAME, line 3: …")."""
    engine = PolicyEngine(source.snapshot(), named_enforcer(enforcer) if enforcer else None)
    warn_of_unevaluated(engine, warn)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            yield engine.explain(_flow(line, where))
        except InputError as error:
            text = error.message if error.source else f"{where}: {error.message}"
            yield LineError(number, f"{text}. {error.hint}" if error.hint else text)


def _end(text: str) -> Target | str:
    """A target, or a domain name as text."""
    return text if _DOMAIN.fullmatch(text) else parse_target(text)


class _Line(msgspec.Struct, frozen=True):
    source: str = msgspec.field(name="from")
    to: str
    port: int
    protocol: str = "TCP"


def _flow(line: str, where: str) -> PolicyFlow:
    try:
        read = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        quoted = re.search(r'"port"\s*:\s*"(\d+)"', line)
        hint = (
            f'A port is a number: drop the quotes, "port": {quoted.group(1)}.'
            if quoted
            else 'A line is {"from": "ns/pod" or "IP", "to": "ns/pod", "IP" or "name.example.com", "port": 80}.'
        )
        raise InputError(str(error), source=where, hint=hint) from None
    if not 1 <= read.port <= 65535:
        raise InputError(f"port {read.port} is not between 1 and 65535", source=where)
    if read.protocol not in PROTOCOLS:
        raise InputError(f"protocol {read.protocol!r} is none of {', '.join(PROTOCOLS)}", source=where)
    return PolicyFlow(_line_end(read.source), _line_end(read.to), read.protocol, read.port)


def _line_end(text: str) -> PolicyEndpoint:
    """NAMESPACE/POD (also pod/NAMESPACE/POD), an address, or a domain name."""
    if "/" in text:
        namespace, _, name = text.removeprefix("pod/").partition("/") if text.count("/") == 2 else text.partition("/")
        return pod_endpoint(namespace, name)
    return domain_endpoint(text) if _DOMAIN.fullmatch(text) else ip_endpoint(text)
