"""Flows from a file, evaluated one by one: a line in, a line out, in the same order."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS, InputError
from kubectl_genainet.model.packet import Protocol, split_endpoint
from kubectl_genainet.proxy.evaluator.evaluate import evaluate
from kubectl_genainet.proxy.evaluator.model import Evaluation, Packet, Part, RulesetVerdict
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.ruleset import Ruleset


class FlowRequest(msgspec.Struct, frozen=True):
    """One line of a flows file. `node_ips` None: the line does not say which addresses are the node's own."""

    packet: Packet
    node_ips: tuple[str, ...] | None = None


class RuleLine(msgspec.Struct, frozen=True):
    table: str
    chain: str
    index: int
    text: str


class FlowPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the ways that connections of the flow go. `share` null: a hash or a scheduler's state decides."""

    verdict: str
    share: float | None
    backends: tuple[str, ...]
    masquerade: bool
    rule: RuleLine | None = None  # that decides


class FlowResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the answer. `masquerade` null is not known; `unknown` names what would have to be known.

    `outcomes` has every way where connections end in more than one (verdict MIXED); `rule` is the one that decides,
    `redirected` where REDIRECT sends the packet on the node itself; `assumed` what was taken for granted.
    """

    verdict: str
    backends: tuple[str, ...]
    masquerade: bool | None
    service: str | None
    rules: tuple[RuleLine, ...]
    unknown: tuple[str, ...] = ()
    node: str = ""
    outcomes: tuple[FlowPart, ...] = ()
    rule: RuleLine | None = None
    redirected: str = ""
    assumed: tuple[str, ...] = ()


_KEYS = {
    "sourceip": "src",
    "source": "src",
    "src": "src",
    "sourceport": "sport",
    "sport": "sport",
    "destip": "dst",
    "destinationip": "dst",
    "dest": "dst",
    "destination": "dst",
    "dst": "dst",
    "destport": "dport",
    "destinationport": "dport",
    "port": "dport",
    "dport": "dport",
    "protocol": "protocol",
    "proto": "protocol",
    "nodeips": "node_ips",
    "nodeip": "node_ips",
    "indevice": "in_device",
    "outdevice": "out_device",
    "ctstate": "ct_state",
    "mark": "mark",
    "icmptype": "icmp_type",
    "icmpcode": "icmp_code",
    "uid": "uid",
    "gid": "gid",
    "bridgeport": "bridge_port",
    "dscp": "dscp",
    "ttl": "ttl",
    "hoplimit": "ttl",
    "length": "length",
    "transparentsocket": "transparent_socket",
}


def read_flows(lines: Iterable[str], source: str) -> Iterator[FlowRequest]:
    """The flows of a file, one JSON object a line; keys in camel or snake case, ones not known are left aside.

    What the rules themselves say (masqueradeAll, podCIDR) is accepted and not needed. Raises InputError with the
    line's number for a line that is no flow.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _flow(msgspec.json.decode(line))
        except (ValueError, TypeError, KeyError, *DECODE_ERRORS) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"this is no flow: {problem}",
                source=f"{source}:{number}",
                hint='One a line: {"sourceIP":"10.0.0.2","destIP":"10.96.0.10","destPort":53,"protocol":"UDP"}',
            ) from None


def words_of(arguments: Sequence[str]) -> list[str]:
    """The words of a flow that was typed, in one pair of quotes or without any; a JSON object is one."""
    if arguments and arguments[0].lstrip().startswith("{"):
        return [" ".join(arguments).strip()]
    return [word for argument in arguments for word in argument.split()]


def flow_of_words(arguments: Sequence[str]) -> FlowRequest:
    """A flow as users type it: "SRC DST[:PORT][/PROTOCOL]", "DST…" alone (any source), or one JSON object.

    Raises InputError where it is none.
    """
    arguments = words_of(arguments)
    if arguments and arguments[0].startswith("{"):
        return next(read_flows(arguments, "FLOW"))
    fields: dict[str, Any] = {"destination": "", "protocol": "TCP"}
    if len(arguments) == 2 and arguments[0] != "-":
        fields["source"] = arguments[0]
    where, slash, protocol = arguments[-1].partition("/") if arguments else ("", "", "")
    if slash:
        fields["protocol"] = protocol
    bare = where.count(":") > 1 and not where.startswith("[")
    address, port = (where, "") if bare or ":" not in where else split_endpoint(where)
    fields["destination"] = address.strip("[]")
    if port:
        fields["port"] = port
    try:
        if not arguments:
            raise ValueError("there is none")
        if len(arguments) > 2:
            raise ValueError(f"{' '.join(arguments)} has more than a source and a destination")
        return _flow(fields)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"this is no flow: {error}",
            hint="Write SRC DST:PORT, as in 10.244.1.7 10.96.0.10:53/UDP (of a cluster also pod/NAME, pod/NAMESPACE/NAME, "
            "svc/NAME[:PORT]), or a JSON object.",
        ) from None


def _flow(raw: Any) -> FlowRequest:
    if not isinstance(raw, dict):
        raise TypeError("it is not a JSON object")
    fields: dict[str, Any] = {}
    for key, value in raw.items():
        name = _KEYS.get(key.replace("_", "").replace("-", "").lower())
        if name is not None and value is not None and value != "":
            fields.setdefault(name, value)
    packet = Packet(
        src=_address(fields["src"]) if "src" in fields else None,
        dst=_address(fields["dst"]),
        sport=int(fields["sport"]) if "sport" in fields else None,
        dport=int(fields["dport"]) if "dport" in fields else None,
        protocol=_protocol(str(fields.get("protocol", "TCP"))),
        mark=int(str(fields["mark"]), 0) if "mark" in fields else None,
        ct_state=str(fields.get("ct_state", "NEW")),
        in_device=_name(fields.get("in_device")),
        out_device=_name(fields.get("out_device")),
        bridge_port=_name(fields.get("bridge_port")),
        bridged="bridge_port" in fields,
        uid=_number(fields.get("uid")),
        gid=_number(fields.get("gid")),
        dscp=_number(fields.get("dscp")),
        ttl=_number(fields.get("ttl")),
        length=_number(fields.get("length")),
        transparent_socket=None
        if "transparent_socket" not in fields
        else fields["transparent_socket"] in (True, "true", 1),
        icmp=_icmp(fields),
    )
    nodes = fields.get("node_ips")
    if isinstance(nodes, str):
        nodes = [nodes]
    return FlowRequest(packet, None if nodes is None else tuple(_address(ip) for ip in nodes))


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(str(value), 0)


def _icmp(fields: dict[str, Any]) -> tuple[int, int] | None:
    kind, code = _number(fields.get("icmp_type")), _number(fields.get("icmp_code"))
    return None if kind is None else (kind, code or 0)


def _address(text: Any) -> str:
    return str(ipaddress.ip_address(str(text)))


def _protocol(text: str) -> Protocol:
    for protocol in Protocol:
        if protocol.value.upper() == text.upper() and protocol is not Protocol.UNKNOWN:
            return protocol
    raise ValueError(f"{text!r} is no protocol that can be evaluated (TCP, UDP, SCTP, ICMP, ICMPv6)")


def evaluate_flows(
    ruleset: Ruleset, flows: Iterable[FlowRequest], *, node_ips: Sequence[str] | None = None, node: str = ""
) -> Iterator[FlowResult]:
    """The answer to each flow; a flow's own node addresses win over `node_ips`."""
    for flow in flows:
        own = flow.node_ips if flow.node_ips is not None else node_ips
        yield result_of(evaluate(ruleset, flow.packet, node_ips=own), node)


def result_of(evaluation: Evaluation, node: str = "") -> FlowResult:
    return FlowResult(
        evaluation.verdict.value,
        tuple(backend.address for backend in evaluation.backends),
        evaluation.masquerade,
        evaluation.service,
        tuple(map(_line, evaluation.rules)),
        evaluation.unknown,
        node,
        parts_of(evaluation) if evaluation.verdict is RulesetVerdict.MIXED else (),
        _deciding(evaluation),
        _redirected(evaluation),
        evaluation.assumed,
    )


def parts_of(evaluation: Evaluation) -> tuple[FlowPart, ...]:
    """Every way that connections of the flow go, each with its share and the rule that decides it."""
    return tuple(map(_part, evaluation.parts))


def _part(part: Part) -> FlowPart:
    backends = tuple(backend.address for backend in part.backends)
    return FlowPart(part.verdict.value, part.share, backends, part.masquerade, _line(part.rule) if part.rule else None)


def _deciding(evaluation: Evaluation) -> RuleLine | None:
    """The one rule that decides for all of the ways; None where several do, or none."""
    if evaluation.verdict is RulesetVerdict.UNKNOWN:
        return None
    rules = {part.rule for part in evaluation.parts}
    rule = rules.pop() if len(rules) == 1 else None
    return None if rule is None or len(evaluation.backends) > 1 else _line(rule)


def _redirected(evaluation: Evaluation) -> str:
    if evaluation.verdict is not RulesetVerdict.ACCEPT:
        return ""
    return next((o.backend.address for o in evaluation.outcomes if o.backend is not None), "")


def _line(rule: RuleRef) -> RuleLine:
    return RuleLine(rule.table, rule.chain, rule.index, rule.text)
