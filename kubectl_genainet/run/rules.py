"""`rules`: what kube-proxy has programmed on each node, and whether it is what the API says."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.history.objects import BEFORE_NS
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import Protocol, address_text
from kubectl_genainet.model.target import Target, TargetKind, not_found, parse_target, pod_named
from kubectl_genainet.proxy.batch import FlowResult, evaluate_flows, flow_of_words, read_flows, words_of
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.drift.ways import OUTSIDE, packets_to
from kubectl_genainet.proxy.dumps.forms import dumps_of
from kubectl_genainet.proxy.evaluator.model import Packet
from kubectl_genainet.proxy.exact import RuleCount, exact_counts
from kubectl_genainet.proxy.firewall.opening import HostFirewall, ServicePacket, admitted, host_firewall
from kubectl_genainet.proxy.report import RulesReport, addresses_of, rules_report, services_of
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset
from kubectl_genainet.proxy.walked import FlowWalk, flow_walk
from kubectl_genainet.run.agents import Warn, read_exact
from kubectl_genainet.run.as_used import AsUsed
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.view import Reporter
from kubectl_genainet.run.watch import keys_of, seen_twice

Dumps = Mapping[str, Sequence[RulesetDump]]


@dataclass(frozen=True, slots=True)
class RulesOptions:
    """`saved` are dumps to read instead of nodes'. `hits_s` reads the counters twice, so far apart. `conntrack` counts the
    connections too: the rules of nftables and IPVS count nothing. `namespace` is a target's, where there is no source."""

    saved: Dumps | None = None
    node: str = ""
    hits_s: float = 0.0
    conntrack: bool = False
    namespace: str = "default"


@dataclass(frozen=True, slots=True)
class RulesRun:
    """The report, and the dumps that it was made from."""

    report: RulesReport
    dumps: Dumps


def rules(source: Source | None, target: Target | None, options: RulesOptions, warn: Warn) -> RulesRun:
    """The rules of every node against the API. Without a source the saved dumps are read by themselves.

    On live nodes what differs is read again before it is said, but not with `hits_s`: that is two readings of the counters.
    """
    if options.hits_s and (options.saved is not None or source is None or not source.live):
        raise GenainetError("--hits needs live nodes: a saved dump has one reading of the counters")
    result = _read(source, target, options, warn)
    if options.saved is not None or source is None or not source.live or options.hits_s:
        return result

    def again() -> RulesRun:
        source.forget()
        return _read(source, target, options, warn)

    return seen_twice(result, again, lambda read: [f for f in read.report.findings if f.severity is not Severity.INFO])


def _read(source: Source | None, target: Target | None, options: RulesOptions, warn: Warn) -> RulesRun:
    dumps = _dumps(source, options, warn)
    earlier = None
    if options.hits_s:
        earlier = dumps
        time.sleep(options.hits_s)
        dumps = _dumps(source, options, warn)
    if source is None:
        namespace = options.namespace
    else:
        namespace = source.default_namespace if target is not None else source.namespace or "default"
    if source is not None:
        _warn_of_older_rules(source, target, namespace, warn)
    report = rules_report(
        source.snapshot() if source is not None else None,
        dumps,
        target,
        namespace=namespace,
        earlier=earlier,
        node_ips=_node_addresses(source, dumps, warn),
    )
    if source is not None:
        report = replace(report, findings=AsUsed(source.options).findings(report.findings))
    return RulesRun(report, dumps)


def programmed(result: RulesRun) -> tuple[object, ...]:
    """What a result says besides what each read measures anew: counters, which every packet changes, and ages."""
    report = result.report
    rows = [msgspec.structs.replace(r, conntrack=None, begun=None, address=r.address.uncounted()) for r in report.rows]
    return rows, keys_of(report.findings), report.not_checked, report.ways


def _warn_of_older_rules(source: Source, target: Target | None, namespace: str, warn: Warn) -> None:
    """Of a time that has passed nodes told their rules up to 20 s before: what differs may be a change that they had not read."""
    changed = set(source.endpoints_just_changed())
    if changed and target is not None:
        asked = services_of(source.snapshot(), target, namespace)
        changed &= {f"{service.metadata.namespace}/{service.metadata.name}" for service in asked}
    if changed:
        services = ", ".join(sorted(changed)[:3]) + (" …" if len(changed) > 3 else "")
        warn(
            f"the endpoints of {services} changed within {BEFORE_NS // 1_000_000_000} s before that time: nodes' rules may be as "
            "they were before it, and a difference is no finding then"
        )


def evaluate_lines(
    source: Source | None, lines: Iterable[str], name: str, options: RulesOptions, warn: Warn
) -> Iterator[FlowResult]:
    """Evaluates one flow a line, in JSON, through every node's rules. Raises InputError that names the line."""
    dumps = _dumps(source, options, warn)
    requests = list(read_flows(lines, name))
    addresses = _node_addresses(source, dumps, warn)
    for node, of_node in dumps.items():
        ruleset = parse_ruleset(of_node)
        for error in ruleset.errors:
            warn(f"{ruleset.node or 'ruleset'}: {error}")
        gc.disable()  # all that is made here stays until the end; the collector would only walk it, again and again
        yield from evaluate_flows(ruleset, requests, node_ips=addresses.get(node), node=node)


def walked(source: Source | None, words: Sequence[str], options: RulesOptions, warn: Warn) -> Iterator[FlowWalk]:
    """One flow's walk through every node's rules. Raises InputError for no flow, GenainetError for a name unknown."""
    dumps = _dumps(source, options, warn)
    request = flow_of_words([_address_of(source, word, options.namespace) for word in words_of(words)])
    addresses = _node_addresses(source, dumps, warn)
    for node, of_node in dumps.items():
        ruleset = parse_ruleset(of_node)
        for error in ruleset.errors:
            warn(f"{ruleset.node or 'ruleset'}: {error}")
        yield flow_walk(ruleset, request, node_ips=addresses.get(node), node=node)


def host_firewalls(source: Source | None, target: Target, options: RulesOptions, warn: Warn) -> Iterator[HostFirewall]:
    """What each node's own firewall refuses of a Service, and the changes that let it through.

    Without a source the target is an address of the node with a port, asked from outside. Raises GenainetError for any other.
    """
    dumps = _dumps(source, options, warn)
    if source is None and (target.kind is not TargetKind.ADDRESS or not isinstance(target.port, int)):
        raise GenainetError("--host-firewall needs a cluster or --manifests for a name", hint="Give IP:PORT.")
    snapshot = source.snapshot() if source is not None else None
    addresses = _node_addresses(source, dumps, warn)
    pod_nets = (
        [net for n in snapshot.nodes for net in (n.spec.pod_cidrs or (n.spec.pod_cidr,)) if net] if snapshot else []
    )
    for node, of_node in dumps.items():
        node_ips = addresses.get(node)
        if snapshot is None or source is None:
            node_ips = (target.name,)
            outside = Packet(src=OUTSIDE[6 if ":" in target.name else 4], dst=target.name, protocol=Protocol.TCP)
            packet = msgspec.structs.replace(outside, dport=int(target.port or 0), bridged=False)
            packets = {str(target): [ServicePacket("outside", packet)]}
        else:
            packets = _packets(
                snapshot, node, parse_ruleset(of_node, node_ips=node_ips), target, source.default_namespace
            )
        for name, asked in packets.items():
            yield host_firewall(of_node, node_ips, asked, pod_nets, service=name, node=node)


def _packets(
    snapshot: ClusterSnapshot, node: str, ruleset: Ruleset, target: Target, namespace: str
) -> dict[str, list[ServicePacket]]:
    rules = NodeRules(node, ruleset)
    by_service = {}
    for service in services_of(snapshot, target, namespace):
        asked = [
            ServicePacket(client, admitted(ruleset, snapshot, packet) if client == "pod" else packet)
            for client, packet in packets_to(snapshot, rules, service)
            if target.kind is not TargetKind.ADDRESS or packet.dst == target.name
        ]
        by_service[f"{service.metadata.namespace}/{service.metadata.name}"] = asked
    return by_service


def _address_of(source: Source | None, word: str, namespace: str) -> str:
    """A word of a flow, with the address for pod/NAME and the first address and port for svc/NAME."""
    kind, slash, _ = word.partition("/")
    if not slash or kind not in ("pod", "svc", "service"):
        return word
    if source is None:
        raise GenainetError(f"{word}: names need a cluster or --manifests", hint="Give an address.")
    target = parse_target(word)
    where = target.namespace or (source.namespace or source.default_namespace or namespace)
    snapshot = source.snapshot()
    if target.kind is TargetKind.POD:
        pod = pod_named(snapshot, where, target.name)
        if not pod.ips:
            raise InputError(f"{pod.ref} has no address yet", hint="Give the address that it will have.")
        return pod.ips[0] if target.port is None else address_text(pod.ips[0], int(target.port))
    service = snapshot.service(where, target.name)
    if service is None or not service.cluster_ips:
        known = [s.metadata.name for s in snapshot.services if s.metadata.namespace == where]
        raise not_found("Service with an address", target.name, known, namespace=where)
    port = next((p for p in service.spec.ports if target.port in (None, p.port, p.name)), None)
    if port is None:
        raise GenainetError(f"{word}: the Service has no such port")
    return f"{address_text(service.cluster_ips[0], port.port)}/{port.protocol}"


def exact_rules(source: Source, target: Target, seconds: float, reporter: Reporter) -> list[RuleCount]:
    """The rules that the nodes' kernels name for the target's packets within the time. Changes the nodes meanwhile."""
    filters = addresses_of(source.snapshot(), target, source.default_namespace)
    agents = source.agents()
    reporter.say(f"tracing {', '.join(address_text(f.ip, f.port) for f in filters)} for {seconds:g} s")
    hits = read_exact(agents, filters, seconds, reporter.warn, source.failed_nodes)
    return list(exact_counts(source.rulesets(reporter.warn), hits))


def saved_dumps(texts: Sequence[tuple[str, str]], of_folders: Sequence[RulesetDump] = ()) -> Dumps:
    """(name, text) of saved dumps, and those found in folders, as one node's. Raises GenainetError for one that can't be read."""
    empty = [name for name, text in texts if not text.strip()]
    texts = [(name, text) for name, text in texts if text.strip() or len(empty) == len(texts)]
    dumps = [*of_folders, *(dump for name, text in texts for dump in dumps_of(text, name=name))]
    if errors := parse_ruleset(dumps).errors:
        raise GenainetError(f"can't read the dump: {'; '.join(errors)}", hint="Save it again; it may be cut short.")
    return {"": dumps}


def _node_addresses(source: Source | None, dumps: Dumps, warn: Warn) -> Mapping[str, Sequence[str]]:
    """Each node's addresses; those of the only node are also those of a node without a name, as saved dumps are."""
    addresses = source.node_addresses() if source is not None else {}
    if len(addresses) == 1:
        return {**addresses, "": next(iter(addresses.values()))}
    if addresses and set(dumps) == {""}:
        warn("which node the saved rules are of is not known, so none of its addresses: --node NAME says so")
    return addresses


def _dumps(source: Source | None, options: RulesOptions, warn: Warn) -> Dumps:
    if options.saved is not None:
        dumps = options.saved
    elif source is not None:
        dumps = source.rulesets(warn, conntrack=options.conntrack)
    else:
        raise GenainetError("there are no rules to read: give a source or saved dumps")
    if not options.node:
        return dumps
    if options.saved is not None and set(dumps) == {""}:  # saved dumps do not say whose they are
        return {options.node: [msgspec.structs.replace(dump, node=options.node) for dump in dumps[""]]}
    if options.node not in dumps:
        raise GenainetError(f"no rules of a node {options.node}", hint="There are: " + ", ".join(sorted(dumps)))
    return {options.node: dumps[options.node]}
