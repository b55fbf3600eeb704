"""The way of a client to its resolver: a connection by name never starts where policies close it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.flows.arrival import is_cluster_dns, node_local_dns, to_node_local_dns
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.selectors import NAMESPACE_NAME_LABEL
from kubectl_genainet.policy.model import (
    Direction,
    Explanation,
    PolicyEndpoint,
    PolicyFlow,
    PolicyVerdict,
    Reason,
    ip_endpoint,
    pod_endpoint,
)

_PORT = 53
_GCE_RESOLVER = "169.254.169.254"
_DNS_LABEL = ("k8s-app", "kube-dns")


class DnsWay(msgspec.Struct, frozen=True):
    """Whether a pod reaches its resolver. `text` is a sentence for people."""

    verdict: PolicyVerdict
    resolver: str
    text: str


class DnsWays:
    """Judges the queries of pods, by the policies of one engine."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self._ways: dict[PolicyEndpoint, DnsWay | None] = {}
        self._cache = node_local_dns(engine.snapshot)

    def of(self, source: PolicyEndpoint, name: str = "") -> DnsWay | None:
        """The way of a pod, with the name that it looks up; None for what is no pod."""
        if source not in self._ways:
            self._ways[source] = self._way_of(source)
        way = self._ways[source]
        return self._through_proxy(source, name, way) if way is not None and name else way

    def _through_proxy(self, source: PolicyEndpoint, name: str, way: DnsWay) -> DnsWay:
        """The way where DNS rules of Cilium (toPorts rules.dns) apply to the pod: its agent refuses other names."""
        lookups, own = self._engine.lookups, self._engine.parties.of(source)
        if lookups is None or way.verdict is not PolicyVerdict.ALLOW or not lookups.restrict(own):
            return way
        if lookups.learn(own, name):
            return way
        why = (
            f"no DNS rule (toPorts rules.dns) of its policies admits {name}, which the agent's DNS proxy refuses unless a rule"
            f" without DNS names admits port {_PORT} too"
        )
        return DnsWay(PolicyVerdict.UNKNOWN, way.resolver, _text(source, way.resolver, PolicyVerdict.UNKNOWN, why))

    @cached_property
    def _resolvers(self) -> list[tuple[PolicyEndpoint, int]]:
        return list(_dns_pods(self._engine.snapshot))

    def _way_of(self, source: PolicyEndpoint) -> DnsWay | None:
        pod = self._engine.snapshot.pod(source.namespace, source.name) if source.name else None
        if pod is None:
            return None
        resolver, queries = self._queries(source, pod)
        verdicts = {verdict for verdict, _ in queries}
        if not queries:
            verdict = PolicyVerdict.ALLOW if _open(self._engine, source) else PolicyVerdict.UNKNOWN
        else:
            verdict = verdicts.pop() if len(verdicts) == 1 else PolicyVerdict.UNKNOWN
        reasons = next((why for v, why in queries if v is not PolicyVerdict.ALLOW and why), "")
        return DnsWay(verdict, resolver, _text(source, resolver, verdict, reasons))

    def _queries(self, source: PolicyEndpoint, pod: Pod) -> tuple[str, list[tuple[PolicyVerdict, str]]]:
        """The resolver, and the verdict on each address that a query may go to, with the reason where it is not admitted."""
        engine, spec = self._engine, pod.spec
        if spec.dns_policy == "None" and spec.dns_config.nameservers:
            servers = spec.dns_config.nameservers
            return f"{', '.join(servers)} (dnsConfig)", [_judged(engine, source, ip_endpoint(ip)) for ip in servers]
        host = spec.host_network and spec.dns_policy != "ClusterFirstWithHostNet"
        if spec.dns_policy == "Default" or host:
            if any(n.spec.provider_id.startswith("gce://") for n in engine.snapshot.nodes):
                return f"the node's resolver {_GCE_RESOLVER}", [_judged(engine, source, ip_endpoint(_GCE_RESOLVER))]
            return "the resolver of its node", []
        if self._cache is not None:
            flow = PolicyFlow(source, ip_endpoint(self._cache[0]), "UDP", _PORT)
            way = _said(to_node_local_dns(engine, flow, *self._cache))
            return f"the DNS cache of its node ({self._cache[0]})", [way]
        if self._resolvers:
            return "the cluster's DNS (kube-dns)", [_judged(engine, source, end, port) for end, port in self._resolvers]
        return "the cluster's DNS (a pod k8s-app=kube-dns of kube-system; it is not among the objects)", [
            _to_usual_dns(engine, source)
        ]


def _text(source: PolicyEndpoint, resolver: str, verdict: PolicyVerdict, reasons: str) -> str:
    match verdict:
        case PolicyVerdict.ALLOW:
            return f"DNS: {source} may ask {resolver}"
        case PolicyVerdict.DENY:
            why = f" ({reasons})" if reasons else ""
            return f"DNS: {source} may not ask {resolver}{why}: a connection by name would never start"
        case _:
            why = f": {reasons}" if reasons else ""
            return f"DNS: whether {source} may ask {resolver} is not known{why}"


def _judged(
    engine: PolicyEngine, source: PolicyEndpoint, resolver: PolicyEndpoint, port: int = _PORT
) -> tuple[PolicyVerdict, str]:
    return _said(engine.explain(PolicyFlow(source, resolver, "UDP", port)))


def _said(explanation: Explanation) -> tuple[PolicyVerdict, str]:
    """The verdict and what stops the query."""
    isolating = (*explanation.egress.isolated_by, *explanation.ingress.isolated_by)
    why = "; ".join(map(str, explanation.not_evaluated)) if explanation.verdict is PolicyVerdict.UNKNOWN else ""
    if explanation.verdict is PolicyVerdict.DENY:
        names = ", ".join(dict.fromkeys(map(str, isolating)))
        why = f"isolated by {names}; no rule admits UDP {explanation.flow.port}" if names else "a rule denies it"
    return explanation.verdict, why


def _dns_pods(snapshot: ClusterSnapshot) -> Iterator[tuple[PolicyEndpoint, int]]:
    """The pods behind the cluster's DNS, each with the port that queries arrive at."""
    services = [s for s in snapshot.services if is_cluster_dns(s)]
    for service in services:
        targets = [p.target_port for p in service.spec.ports if p.port == _PORT]
        port = next((t for t in targets if isinstance(t, int) and t), _PORT)
        wanted = service.spec.selector.items()
        for pod in snapshot.pods:
            meta = pod.metadata
            if wanted and meta.namespace == service.metadata.namespace and wanted <= meta.labels.items():
                named = next((p.container_port for p in pod.ports if p.name in targets and p.protocol == "UDP"), port)
                yield pod_endpoint(meta.namespace, meta.name), named
    if not services:
        for pod in snapshot.pods:
            if pod.metadata.labels.get(_DNS_LABEL[0]) == _DNS_LABEL[1] and not pod.finished:
                yield pod_endpoint(pod.metadata.namespace, pod.metadata.name), _PORT


def _to_usual_dns(engine: PolicyEngine, source: PolicyEndpoint) -> tuple[PolicyVerdict, str]:
    """The verdict on a query to kube-dns as every cluster runs it, judged by the client's side alone."""
    usual = PolicyParty(
        PartyKind.POD,
        "kube-system/kube-dns",
        namespace="kube-system",
        name="kube-dns",
        labels={_DNS_LABEL[0]: _DNS_LABEL[1]},
        namespace_labels=engine.snapshot.namespace_labels("kube-system") | {NAMESPACE_NAME_LABEL: "kube-system"},
    )
    flow = PolicyFlow(source, pod_endpoint("kube-system", "kube-dns"), "UDP", _PORT)
    result = engine.direction_of(flow, Direction.EGRESS, engine.parties.of(source), usual)
    names = ", ".join(map(str, result.isolated_by))
    why = f"isolated by {names}; no rule admits UDP {_PORT}" if result.verdict is PolicyVerdict.DENY and names else ""
    return result.verdict, why or "; ".join(map(str, result.not_evaluated))


def _open(engine: PolicyEngine, source: PolicyEndpoint) -> bool:
    """Whether no policy bears on what the pod sends."""
    result = engine.explain(PolicyFlow(source, ip_endpoint("192.0.2.53"), "UDP", _PORT)).egress
    return result.reason in (Reason.DEFAULT, Reason.HOST_NETWORK, Reason.INERT) and not result.not_evaluated
