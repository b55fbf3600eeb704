"""Lookup habits: ndots, search domains, parallel queries."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, derived, on_node, seen
from kubectl_genainet.doctor.measured import client_of, judged, too_few, too_short
from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, mapping, number, sh, strings, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit_spec
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity

DEFAULT_NDOTS = 5
WASTE_SHARE = 0.4
_DOMAIN = "cluster.local"  # the kubelet's default; a cluster may have another


def resolver(workload: Workload) -> tuple[int, int]:
    """(ndots, search domains) of a pod's resolv.conf, as the kubelet writes it: each once, and without the node's own.

    Source: pkg/kubelet/network/dns/dns.go, "getPodDNSType", "appendDNSConfig".
    """
    spec = workload.template.spec
    options = items(spec, "dnsConfig", "options")
    ndots_value = next((number(o, "value", default=1) for o in options if text(o, "name") == "ndots"), None)
    own = {domain.rstrip(".").lower() for domain in strings(spec, "dnsConfig", "searches")}
    host_network = workload.template.host_network
    policy = text(spec, "dnsPolicy") or "ClusterFirst"
    if policy in ("None", "Default") or (host_network and policy == "ClusterFirst"):
        return (1 if ndots_value is None else ndots_value), len(own)
    own |= {f"{workload.namespace}.svc.{_DOMAIN}", f"svc.{_DOMAIN}", _DOMAIN}
    return (DEFAULT_NDOTS if ndots_value is None else ndots_value), len(own)


def _wasted(host: str, ndots: int, searches: int) -> int:
    """Search-domain names that are asked before the name itself; each is asked for A and AAAA."""
    if host.endswith(".") or host.count(".") >= ndots:
        return 0
    return searches


def _ndots_edit(workload: Workload) -> str:
    """Sets ndots; the other options of dnsConfig are kept."""
    options = [o for o in items(workload.template.spec, "dnsConfig", "options") if text(o, "name") != "ndots"]
    value = {**mapping(workload.template.spec, "dnsConfig"), "options": [*options, {"name": "ndots", "value": "2"}]}
    return edit_spec(workload, "dnsConfig", value)


@check(Area.LOOKUPS, Severity.INFO, needs=("Pod",), own_namespace=True)
def ndots(cluster: Cluster) -> Problems:
    """Lookups of external names are multiplied by search domains.

    Looks at hosts outside the cluster, and at full Service names (NAME.NS.svc.cluster.local) without a trailing dot, in
    the configuration of GenAI workloads, and at ndots and the search domains of their pods (dnsPolicy, dnsConfig). A
    name with fewer dots than ndots (5 by default) is first asked below every search domain.

    Why: api.openai.com becomes four names, eight queries; six of them are wasted, on every new connection, and each
    can stall. Information: Kubernetes' default does this to every pod, and how often a workload connects is not seen;
    dns-search-waste and dns-stalls tell it where DNS is measured.

    Source: man 5 resolv.conf, https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-config
    """
    by_client: dict[ObjectRef, list[tuple[Call, int]]] = defaultdict(list)
    for call in cluster.genai_calls:
        if call.external or call.host.rstrip(".").count(".") >= 3:
            ndots_, searches = resolver(call.client)
            wasted = _wasted(call.host, ndots_, searches)
            if wasted:
                by_client[call.client.ref].append((call, wasted))
    for calls in by_client.values():
        client = calls[0][0].client
        ndots_, _ = resolver(client)
        hosts = list(dict.fromkeys(c.host for c, _ in calls))
        shown = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
        ndots_option = next(
            (o for o in items(client.template.spec, "dnsConfig", "options") if o.get("name") == "ndots"), None
        )
        setting = f"ndots is {ndots_}" + ("" if ndots_option else " (the default)")
        yield Problem(
            f"{calls[0][1] * 2} of {calls[0][1] * 2 + 2} queries for {shown} are wasted",
            client.ref,
            (
                seen(
                    client.ref,
                    client.field("dnsConfig.options[ndots].value"),
                    ndots_ if ndots_option else None,
                    setting,
                ),
                *(c.evidence for c, _ in calls[:3]),
                derived(
                    client.ref, "", calls[0][1], f"{calls[0][1]} search domains are tried first, for A and for AAAA"
                ),
            ),
            Remedy(
                "Set ndots to 2 (NAME and NAME.NAMESPACE are still looked up in the search domains; musl no longer finds "
                "NAME.NAMESPACE.svc), or end the names with a dot.",
                command=_ndots_edit(client),
            ),
        )


@check(Area.LOOKUPS, Severity.ERROR, needs=(Need.DNS,))
def dns_stalls(cluster: Cluster) -> Problems:
    """Lookups take a multiple of 5 seconds.

    Looks at measured DNS for queries that the resolver had to send again after its timeout, and at who did not answer.

    Why: one query of an A/AAAA pair was lost (the race of parallel queries in conntrack) or a DNS pod does not
    answer; the resolver waits 5 s before it asks again. An error: requests wait 5 s and more.

    Source: man 5 resolv.conf (timeout), kernel commits 4e35c1cb9460 and ed07d9a021df
    """
    yield from too_short(cluster)
    for stats in cluster.dns:
        if not stats.stalled:
            continue
        statements = [
            on_node(
                stats.node,
                f"{stats.stalled} queries were sent again, to {stats.server}",
                stats.stalled,
                field="stalled",
            )
        ]
        if stats.silent:
            statements.append(
                on_node(stats.node, f"no answer from {', '.join(stats.silent)}", list(stats.silent), field="silent")
            )
        if stats.races:
            statements.append(
                on_node(stats.node, f"{stats.races} were lost to the conntrack race", stats.races, field="races")
            )
        yield Problem(
            f"{stats.stalled} of {stats.queries} lookups by {stats.client} stalled for 5 s or more",
            ObjectRef("Service", "kube-dns", "kube-system"),
            tuple(statements),
            Remedy(
                "See where those queries die.",
                command=f"kubectl genainet dns -n {sh(stats.client.partition('/')[0])} --server",
            )
            if stats.silent and not stats.races
            else Remedy(
                "Run NodeLocal DNSCache, or let the resolver ask one after the other.",
                yaml="# in the pod's spec\ndnsConfig:\n  options:\n  - name: single-request-reopen\n",
            ),
        )


@check(Area.LOOKUPS, Severity.WARNING, needs=(Need.DNS,))
def dns_search_waste(cluster: Cluster) -> Problems:
    """Many measured lookups of a workload are search-domain attempts.

    Looks at measured DNS: queries that only tried a search domain, from 40 % of at least 20 queries.

    Why: measured, not assumed: that share of the DNS load and of the waiting is for nothing. A warning: lookups are
    answered, after useless ones.

    Source: man 5 resolv.conf (search, ndots)
    """
    yield from too_few(cluster)
    for stats in judged(cluster):
        if stats.searched >= WASTE_SHARE * stats.queries:
            client = client_of(cluster, stats)
            advice = "Set ndots to 2 for it, or end the names with a dot."
            yield Problem(
                f"{stats.searched} of {stats.queries} lookups by {stats.client} only tried search domains",
                client.ref if client else ObjectRef("Service", "kube-dns", "kube-system"),
                (on_node(stats.node, f"{stats.searched} search-domain attempts", stats.searched, field="searched"),),
                Remedy(advice, command=_ndots_edit(client))
                if client
                else Remedy(
                    advice, yaml='# in the pod\'s spec\ndnsConfig:\n  options:\n  - name: ndots\n    value: "2"\n'
                ),
            )
