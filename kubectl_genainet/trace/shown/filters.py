"""Which connections a trace shows: by verdict, by client, by backend, by label, and only the last so many."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from kubectl_genainet.context.identity import workload_of
from kubectl_genainet.context.selector import parse_selector
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef, Verdict
from kubectl_genainet.model.target import KIND_WORDS, NAMESPACE_WORDS, NODE_WORDS, TargetKind, not_found, parse_target

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Matches = Callable[[Party, ServiceRef | None, ClusterSnapshot], bool]
_FORMS = (
    "Ends are pod/NAME or pod/NAMESPACE/NAME, deploy/NAME (sts/, ds/, …), svc/NAME, ns/NAME, node/NAME, an address, a CIDR or a "
    "label (app=rag)."
)


@dataclass(frozen=True, slots=True)
class PathFilter:
    """Each of the conditions that are given must hold; of several values of one, any."""

    verdicts: frozenset[Verdict] = frozenset()
    clients: tuple[Matches, ...] = ()
    servers: tuple[Matches, ...] = ()
    either: tuple[Matches, ...] = ()

    def admits(self, path: PacketPath, snapshot: ClusterSnapshot) -> bool:
        """Whether the path is to be shown."""
        return self.has_verdict(path) and self.is_between(path, snapshot)

    def has_verdict(self, path: PacketPath) -> bool:
        return not self.verdicts or path.verdict in self.verdicts

    def is_between(self, path: PacketPath, snapshot: ClusterSnapshot) -> bool:
        """Whether its ends are the ones asked for, whatever became of it."""
        client, service = path.flow.client, path.flow.service
        server = path.backend or Party(service.ip if service else "")
        if self.clients and not any(matches(client, None, snapshot) for matches in self.clients):
            return False
        if self.servers and not any(matches(server, service, snapshot) for matches in self.servers):
            return False
        return not self.either or any(m(end, None, snapshot) for m in self.either for end in (client, server))


def path_filter(
    *,
    verdicts: tuple[str, ...] = (),
    clients: tuple[str, ...] = (),
    servers: tuple[str, ...] = (),
    labels: str = "",
    namespace: str = "",
) -> PathFilter:
    """From the texts of a command line; names without a namespace are in `namespace`. Raises InputError."""
    return PathFilter(
        frozenset(_verdict(name.strip()) for text in verdicts for name in text.split(",")),
        tuple(end_filter(text, namespace) for text in clients),
        tuple(end_filter(text, namespace) for text in servers),
        (_labelled(labels),) if labels else (),
    )


def _verdict(name: str) -> Verdict:
    try:
        return Verdict(name.lower())
    except ValueError:
        raise InputError(
            f"{name!r} is not a verdict", hint=f"Verdicts are {', '.join(v.value for v in Verdict)}."
        ) from None


def end_filter(text: str, namespace: str = "") -> Matches:
    """What "pod/NAME", "ns/NAME", "10.0.0.0/8" or "app=rag" matches. Raises InputError for what is none of the forms."""
    network = _network(text)
    if network is not None:
        return lambda end, _, __: _within(end.ip, network)
    kind, slash, name = text.partition("/")
    if slash and kind.lower() in NAMESPACE_WORDS:
        return lambda end, _, __: end.namespace == name
    if slash and kind.lower() in NODE_WORDS:
        return lambda end, _, __: end.node == name
    if slash and kind.lower() in KIND_WORDS:
        return _object(text, namespace)
    if "=" in text or " in " in text or " notin " in text:
        return _labelled(text)
    raise InputError(f"{text!r} names no end of a connection", hint=_FORMS)


def unknown_end(text: str, snapshot: ClusterSnapshot) -> InputError | None:
    """The error for a name that nothing in the cluster has, with near matches; None where something has it, or it is no name."""
    kind, slash, name = text.partition("/")
    word = kind.lower()
    if not slash or _network(text) is not None or "=" in text:
        return None
    if word in NAMESPACE_WORDS:
        return _unless_known("Namespace", name, {pod.metadata.namespace for pod in snapshot.pods}, snapshot)
    if word in NODE_WORDS:
        return _unless_known("Node", name, {pod.spec.node_name for pod in snapshot.pods}, snapshot)
    target = parse_target(text)
    match target.kind:
        case TargetKind.SERVICE:
            known = {service.metadata.name for service in snapshot.services}
        case TargetKind.POD:
            known = {pod.metadata.name for pod in snapshot.pods}
        case _:
            known = {workload for pod in snapshot.pods if (workload := workload_of(pod))}
    return _unless_known(target.api_kind, target.name, known, snapshot)


def _unless_known(kind: str, name: str, known: set[str], snapshot: ClusterSnapshot) -> InputError | None:
    known |= {obj.name for obj in snapshot.of(kind)}
    return None if name in known else not_found(kind, name, known)


def _object(text: str, namespace: str) -> Matches:
    target = parse_target(text)
    where = target.namespace or namespace
    match target.kind:
        case TargetKind.SERVICE:
            return lambda _, service, __: (
                service is not None and service.name == target.name and where in ("", service.namespace)
            )
        case TargetKind.POD:
            return lambda end, _, __: end.pod == target.name and where in ("", end.namespace)
        case _:
            return lambda end, _, __: end.workload == target.name and where in ("", end.namespace)


def _labelled(text: str) -> Matches:
    selector = parse_selector(text)

    def matches(end: Party, _: ServiceRef | None, snapshot: ClusterSnapshot) -> bool:
        pod = snapshot.pod(end.namespace, end.pod) if end.pod and end.namespace else None
        return pod is not None and selector.matches(pod.metadata.labels)

    return matches


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _within(ip: str, network: Network) -> bool:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return address.version == network.version and address in network
