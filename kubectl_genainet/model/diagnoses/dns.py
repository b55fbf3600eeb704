"""What is wrong with name lookup."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Suspect, Topic
from kubectl_genainet.model.finding import Severity

DNS_DROPPED = Diagnosis(
    Topic.DNS,
    "dns-dropped",
    Severity.ERROR,
    "the kernel dropped queries or responses",
    "The finding has the reason, the hook and the rule.",
    "Treat it like the same drop of any other packet.",
    symptom=True,
    blames=frozenset({Suspect.DNS}),
)
DNS_POLICY = Diagnosis(
    Topic.DNS,
    "dns-policy",
    Severity.ERROR,
    "queries were dropped, and a policy isolates the client for egress",
    "No rule of its policies admits DNS.",
    "Admit UDP and TCP port 53 to the cluster's DNS pods; the finding has the YAML.",
    "https://kubernetes.io/docs/concepts/services-networking/network-policies/",
    symptom=True,
    blames=frozenset({Suspect.DNS, Suspect.POLICIES}),
)
DNS_TIMEOUT = Diagnosis(
    Topic.DNS,
    "dns-timeout",
    Severity.ERROR,
    "queries were not answered, and no drop was seen",
    "The finding names the last place that saw the query or its response, and whether the server's upstream was silent.",
    "Start from the last place that saw the query or its response.",
    symptom=True,
    blames=frozenset({Suspect.DNS}),
)
DNS_CONNTRACK_RACE = Diagnosis(
    Topic.DNS,
    "dns-conntrack-race",
    Severity.ERROR,
    "of A and AAAA from one socket within 5 ms one was answered and the other was lost on the client's node, by conntrack's "
    "confirmation or while `insert_failed` of `conntrack -S` grew",
    "Both raced for one entry in the connection table. A query that reached the server never counts as one; where the kernel "
    "resolves the clash (`clash_resolve` grows), no query is lost, and nothing is reported.",
    "single-request-reopen in the pods' dnsConfig.options, or NodeLocal DNSCache, whose address is not translated.",
    "net/netfilter/nf_conntrack_core.c",
    blames=frozenset({Suspect.DNS}),
)
DNS_SLOW_UPSTREAM = Diagnosis(
    Topic.DNS,
    "dns-slow-upstream",
    Severity.WARNING,
    "a median of 200 ms or more in the server's upstream",
    "Names outside the cluster are slow; the cluster's DNS is not.",
    "Look at the upstream resolvers of the DNS pods' node.",
    blames=frozenset({Suspect.DNS}),
)
DNS_SLOW_SERVER = Diagnosis(
    Topic.DNS,
    "dns-slow-server",
    Severity.WARNING,
    "a median of 200 ms or more in the server",
    "The DNS pod itself is slow.",
    "Look at its CPU limit and throttling.",
    blames=frozenset({Suspect.DNS}),
)
DNS_SLOW_NETWORK = Diagnosis(
    Topic.DNS,
    "dns-slow-network",
    Severity.WARNING,
    "a median of 200 ms or more between the clients and the server",
    "The network is slow, not the server.",
    "`trace` the DNS Service from one of these clients.",
    blames=frozenset({Suspect.DNS}),
)
DNS_SERVER_FAILURE = Diagnosis(
    Topic.DNS,
    "dns-server-failure",
    Severity.WARNING,
    "a server answered with SERVFAIL, REFUSED or another code",
    "Its upstream fails, or its configuration refuses the client.",
    "Look at the server's log.",
    "RFC 1035 4.1.1",
    blames=frozenset({Suspect.DNS}),
)
DNS_TCP_BLOCKED = Diagnosis(
    Topic.DNS,
    "dns-tcp-blocked",
    Severity.ERROR,
    "TCP connections to a DNS port were not answered",
    "Clients cannot repeat a truncated query over TCP, so large answers fail.",
    "Admit TCP port 53 as well as UDP.",
    "RFC 7766",
    blames=frozenset({Suspect.DNS}),
)
DNS_NXDOMAIN_STORM = Diagnosis(
    Topic.DNS,
    "dns-nxdomain-storm",
    Severity.WARNING,
    "40 or more NXDOMAIN responses, and half of the client's queries, for names of which no candidate resolves",
    "The client asks again and again for names that do not exist.",
    "Correct the name in the client's configuration.",
    blames=frozenset({Suspect.DNS}),
)
DNS_NDOTS_WASTE = Diagnosis(
    Topic.DNS,
    "dns-ndots-waste",
    Severity.WARNING,
    "20 or more queries, and 40 % of the client's, only tried search domains",
    "With ndots:5 each lookup of an external name costs several queries first. The finding has resolv.conf's lines.",
    "Write the name with a trailing dot, or lower ndots for these pods.",
    "resolv.conf(5)",
    blames=frozenset({Suspect.DNS}),
)
