"""`explain`: whether policies admit a flow, why, and what would admit it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.policy import (
    Explanation,
    Option,
    Patch,
    Patcher,
    PolicyEngine,
    PolicyFlow,
    Verdict,
    ip_endpoint,
    patch_all,
    pod_endpoint,
)
from kubectl_genainet.policy.model import PolicyEndpoint
from kubectl_genainet.policy.rules import PROTOCOLS
from kubectl_genainet.policy.targets import flows_between
from kubectl_genainet.policy.unevaluated import RefusedBy
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source

_MOST_NAMED = 20
# Its last part has a letter, so it is no address.
_DOMAIN = re.compile(r"([A-Za-z0-9_-]+\.)+(?=[0-9-]*[A-Za-z])[A-Za-z0-9-]+\.?(:\w+)?")


@dataclass(frozen=True, slots=True)
class ExplainedFlow:
    """What the policies say of a flow. `service` is the Service that it was asked through, "" for none."""

    explanation: Explanation
    service: str = ""

    @property
    def admitted(self) -> bool:
        return self.explanation.verdict is Verdict.ALLOW


class FlowsBetween:
    """The flows from one end to another, explained; their patches are computed when they are asked for.

    An end is pod/NAME, deploy/NAME, svc/NAME or an IP address, the destination also a domain name. Raises InputError,
    with near matches, for what does not exist.
    """

    def __init__(self, source: Source, start: str, end: str, *, protocol: str = "") -> None:
        ends = _end(start), _end(end)
        snapshot = source.snapshot()
        namespace = source.default_namespace
        chosen = flows_between(snapshot, *ends, namespace=namespace, protocol=protocol.upper())
        self.engine = PolicyEngine(snapshot)
        self._patcher = Patcher(self.engine)
        self.flows = [ExplainedFlow(self.engine.explain(flow), service) for flow, service in chosen]

    @property
    def all_admitted(self) -> bool:
        return all(flow.admitted for flow in self.flows)

    def check_refused(self) -> None:
        """Raises InputError where an answer hangs on a policy of a file that the API server would not take."""
        unknown = [f.explanation for f in self.flows if f.explanation.verdict is Verdict.UNKNOWN]
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


def explain_lines(
    source: Source, lines: Iterable[str], name: str, warn: Warn = lambda _: None
) -> Iterator[Explanation]:
    """Explains one flow a line, in JSON. Raises InputError that names the line ("NAME, line 3")."""
    engine = PolicyEngine(source.snapshot())
    warn_of_unevaluated(engine, warn)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        flow = _flow(line, where)
        try:
            explanation = engine.explain(flow)
        except InputError as error:
            raise InputError(error.message, source=where, hint=error.hint) from None
        yield explanation


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
        raise InputError(
            str(error),
            source=where,
            hint='A line is {"from": "ns/pod" or "IP", "to": "ns/pod" or "IP", "protocol": "TCP", "port": 80}.',
        ) from None
    if not 1 <= read.port <= 65535:
        raise InputError(f"port {read.port} is not between 1 and 65535", source=where)
    if read.protocol not in PROTOCOLS:
        raise InputError(f"protocol {read.protocol!r} is none of {', '.join(PROTOCOLS)}", source=where)
    return PolicyFlow(_line_end(read.source), _line_end(read.to), read.protocol, read.port)


def _line_end(text: str) -> PolicyEndpoint:
    namespace, slash, name = text.partition("/")
    return pod_endpoint(namespace, name) if slash else ip_endpoint(text)
