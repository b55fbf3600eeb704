"""`explain --flows`: many flows, one a line, each judged by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.target import KIND_WORDS, Target, parse_target
from kubectl_genainet.policy.enforcers import Enforcer
from kubectl_genainet.policy.flows.targets import SentFlow, destinations_of, flows_between
from kubectl_genainet.policy.matching.cidr import address_of
from kubectl_genainet.policy.model import PolicyFlow, PolicyVerdict, domain_endpoint
from kubectl_genainet.policy.rules import PROTOCOLS
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.policies.explain import Explainer, JudgedFlow, end_of, is_name, warn_of_unknown
from kubectl_genainet.run.sources.base import Source

_FORM = '{"from": "NAMESPACE/POD", "to": "NAMESPACE/POD", "port": 80}, or SRC DST:PORT as on the command line'
_ADDRESS_LIKE = re.compile(r"[0-9.]+|[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*")


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that can't be judged; the others are."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """The flows that a line stands for, at least one."""

    line: int
    flows: tuple[JudgedFlow, ...]
    enforcer: Enforcer

    @property
    def deciding(self) -> JudgedFlow:
        """The flow that decides the line: one that is denied, else one that is not known, else one that never starts since its
        name can't be looked up, else the first."""
        order = (PolicyVerdict.DENY, PolicyVerdict.UNKNOWN, PolicyVerdict.ALLOW)
        return min(self.flows, key=lambda flow: (order.index(flow.explanation.verdict), flow.starts))


def explain_lines(
    source: Source, lines: Iterable[str], name: str, warn: Warn = lambda _: None, *, enforcer: str = ""
) -> Iterator[LineAnswer | LineError]:
    """Explains each line; one that can't be read or judged is a LineError ("NAME, line 3: …") and ends nothing."""
    snapshot = source.snapshot()
    explainer = Explainer(snapshot, enforcer)
    warn_of_unknown(source, explainer.engine, warn)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            request = _asked(snapshot, line, where)
            flows_asked = _flows(snapshot, request, source.default_namespace)
            by_name = is_name(request.destination)
            flows = tuple(explainer.explained(sent, by_name=by_name) for sent in flows_asked)
            yield LineAnswer(number, flows, explainer.engine.enforcer)
        except InputError as error:
            text = error.message if error.source else f"{where}: {error.message}"
            yield LineError(number, f"{text}. {error.hint}" if error.hint else text)


def _flows(snapshot: ClusterSnapshot, asked: _Asked, namespace: str) -> list[SentFlow]:
    """The flows of a line. One that comes from a name comes from outside, whatever address the name has."""
    if not isinstance(asked.source, str):
        return flows_between(snapshot, asked.source, asked.destination, namespace=namespace, protocol=asked.protocol)
    named = domain_endpoint(asked.source.partition(":")[0])
    destinations = destinations_of(snapshot, asked.destination, namespace, asked.protocol)
    return [SentFlow(PolicyFlow(named, d.endpoint, d.protocol, d.port), d.service, d.entry) for d in destinations]


class _Line(msgspec.Struct, frozen=True):
    source: str = msgspec.field(name="from")
    to: str
    port: int | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    source: Target | str
    destination: Target | str
    protocol: str


def _asked(snapshot: ClusterSnapshot, line: str, where: str) -> _Asked:
    read = _decoded(line, where) if line.lstrip().startswith("{") else _shorthand(line, where)
    if read.protocol and read.protocol not in PROTOCOLS:
        raise InputError(f"protocol {read.protocol!r} is none of {', '.join(PROTOCOLS)}", source=where)
    if read.port is not None and not 1 <= read.port <= 65535:
        raise InputError(f"port {read.port} is not between 1 and 65535", source=where)
    return _Asked(_end(snapshot, read.source, None), _end(snapshot, read.to, read.port), read.protocol)


def _decoded(line: str, where: str) -> _Line:
    try:
        return msgspec.json.decode(line, type=_Line)
    except DECODE_ERRORS as error:
        quoted = re.search(r'"port"\s*:\s*"(\d+)"', line)
        hint = f'A port is a number: drop the quotes, "port": {quoted.group(1)}.' if quoted else f"A line is {_FORM}."
        raise InputError(str(error), source=where, hint=hint) from None


def _shorthand(line: str, where: str) -> _Line:
    parts = line.split()
    if len(parts) not in (2, 3):
        raise InputError(f"{line.strip()[:80]!r} is no flow", source=where, hint=f"A line is {_FORM}.")
    return _Line(parts[0], parts[1], protocol=parts[2].upper() if len(parts) == 3 else "")


def _end(snapshot: ClusterSnapshot, text: str, port: int | None) -> Target | str:
    """An end of a line: NAMESPACE/POD before KIND/NAME, where a namespace has the name of a kind."""
    if _ADDRESS_LIKE.fullmatch(text) and address_of(text) is None:
        raise InputError(f"{text!r} is not an IP address")
    first, slash, after_slash = text.partition("/")
    name = after_slash.partition(":")[0]
    if slash and "/" not in after_slash and (snapshot.pod(first, name) is not None or first.lower() not in KIND_WORDS):
        target: Target | str = parse_target(f"pod/{text}")
    else:
        target = end_of(text)
    if port is None:
        return target
    if isinstance(target, str):
        return f"{target.partition(':')[0]}:{port}"
    return msgspec.structs.replace(target, port=port)
