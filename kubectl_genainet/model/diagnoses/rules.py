"""What a netfilter rule, a policy or the connection table does to packets."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Suspect, Topic
from kubectl_genainet.model.finding import Severity

POLICY_DROP = Diagnosis(
    Topic.RULES,
    "policy-drop",
    Severity.ERROR,
    "a rule dropped the packet, and a policy isolates the pod but has no rule that admits the flow",
    "A NetworkPolicy (or a policy of another kind) isolates the pod; nothing admits this flow.",
    "`explain SRC DST --patch` prints the smallest change that admits it.",
    "https://kubernetes.io/docs/concepts/services-networking/network-policies/",
    policies_judge=True,
    blames=frozenset({Suspect.POLICIES}),
)
POLICY_DISAGREEMENT = Diagnosis(
    Topic.RULES,
    "policy-disagreement",
    Severity.ERROR,
    "a policy enforcer's rule dropped the packet, and by the API's policies the flow is admitted",
    "The node's rules and the API objects disagree: the enforcer lags behind, or has stopped.",
    "Look at the enforcer's pod on that node; restart it if it does not catch up.",
    policies_judge=True,
    blames=frozenset({Suspect.POLICIES, Suspect.RULES}),
)
POLICY_NOT_ENFORCED = Diagnosis(
    Topic.RULES,
    "policy-not-enforced",
    Severity.ERROR,
    "a connection was established that no policy admits",
    "Nothing on the node enforces the policy, or a rule before the enforcer's accepts the packet.",
    "Check that the cluster's network plugin enforces policies, and that its agent runs on that node.",
    blames=frozenset({Suspect.POLICIES}),
    lets_pass=True,
)
RULE_DROP = Diagnosis(
    Topic.RULES,
    "rule-drop",
    Severity.ERROR,
    "a netfilter rule dropped the packet",
    "The rule belongs to no known policy enforcer: a firewall, a hardening script.",
    "Find out which program wrote the rule (a firewall, a hardening script, an agent), and change it there.",
    policies_judge=True,
    blames=frozenset({Suspect.RULES}),
)
REJECTED_BY_RULE = Diagnosis(
    Topic.RULES,
    "rejected-by-rule",
    Severity.ERROR,
    "a netfilter rule rejected the packet and informed its sender",
    "The REJECT rule belongs to no known policy enforcer.",
    "Find out which program wrote the rule, and change it there: a firewall, a hardening script, a security agent.",
    "iptables-extensions(8), nft(8)",
    policies_judge=True,
    blames=frozenset({Suspect.RULES}),
    follows=frozenset({"no-endpoints"}),
)
# No policy is behind the rule of such a drop: policies that are named with it would keep the flow out as well.
OF_NO_ENFORCER = frozenset({RULE_DROP.name, REJECTED_BY_RULE.name})
NETFILTER_DROP = Diagnosis(
    Topic.RULES,
    "netfilter-drop",
    Severity.ERROR,
    "a netfilter hook dropped the packet; no rule that was read explains it",
    "Another table, rules that have changed since, or a kernel module.",
    "`trace --exact` has the kernel name the rule.",
    symptom=True,
    policies_judge=True,
)
NO_ENDPOINTS = Diagnosis(
    Topic.RULES,
    "no-endpoints",
    Severity.ERROR,
    "the packet was sent to a Service that has no ready endpoint",
    "kube-proxy refuses the Service's connections until a pod behind it is ready.",
    "Look at the pods that the Service selects: none is there, or none is ready.",
    "https://kubernetes.io/docs/concepts/services-networking/service/",
    blames=frozenset({Suspect.ENDPOINTS}),
    follows=frozenset({"no-endpoints"}),
)
NO_SUCH_PORT = Diagnosis(
    Topic.RULES,
    "no-such-port",
    Severity.ERROR,
    "the packet was sent to a Service's address, at a port that the Service does not have",
    "kube-proxy takes only the ports of the Service's spec, and refuses the others in nftables mode.",
    "Correct the port in the client's settings, or add it to the Service.",
    "https://kubernetes.io/docs/reference/networking/virtual-ips/",
    blames=frozenset({Suspect.RULES}),
)
KUBE_PROXY_DROP = Diagnosis(
    Topic.RULES,
    "kube-proxy-drop",
    Severity.ERROR,
    "a rule of kube-proxy's own dropped or rejected the packet",
    "No Service has the address, the Service's source ranges leave the client out, or its traffic policy leaves no endpoint.",
    "Compare the Service's traffic policies and source ranges with where the client and the endpoints are.",
    "https://kubernetes.io/docs/reference/networking/virtual-ips/",
    blames=frozenset({Suspect.RULES}),
)
CONNTRACK_FULL = Diagnosis(
    Topic.RULES,
    "conntrack-full",
    Severity.ERROR,
    "the connection tracking table was full (`drop` of `conntrack -S`)",
    "New connections have no room in it and are dropped.",
    "Raise net.netfilter.nf_conntrack_max, or find what opens so many connections.",
    "net/netfilter/nf_conntrack_core.c",
    blames=frozenset({Suspect.CONNTRACK}),
)
CONNTRACK_RACE = Diagnosis(
    Topic.RULES,
    "conntrack-race",
    Severity.ERROR,
    "a packet was dropped when its connection was confirmed, while `insert_failed` of `conntrack -S` grew",
    "Two packets of one flow raced for its entry; the loser is dropped. Typical of A and AAAA queries from one socket.",
    "For DNS: single-request-reopen in the pods' dnsConfig, or NodeLocal DNSCache.",
    "nf_confirm, net/netfilter/nf_conntrack_proto.c",
    blames=frozenset({Suspect.CONNTRACK}),
)
CONNTRACK_INSERT_FAILED = Diagnosis(
    Topic.RULES,
    "conntrack-insert-failed",
    Severity.WARNING,
    "`insert_failed` of `conntrack -S` grew",
    "Two packets of one connection raced for its entry, or a source NAT found no free port; which one is not known.",
    "See conntrack-race and snat-ports-exhausted.",
    "nf_ct_resolve_clash, net/netfilter/nf_conntrack_core.c",
    blames=frozenset({Suspect.CONNTRACK}),
    follows=frozenset({"conntrack-race", "snat-ports-exhausted"}),
)
CONNTRACK_INVALID = Diagnosis(
    Topic.RULES,
    "conntrack-invalid",
    Severity.ERROR,
    "a rule drops the packet, but only because conntrack marked it INVALID",
    "Connection tracking did not accept it as part of a connection: outside the window, a wrong checksum, an unknown connection.",
    "Look for asymmetric routes; net.netfilter.nf_conntrack_tcp_be_liberal=1 accepts what is outside the window.",
    "https://kubernetes.io/blog/2019/03/29/kube-proxy-subtleties-debugging-an-intermittent-connection-reset/",
    blames=frozenset({Suspect.CONNTRACK}),
)
SNAT_PORTS_EXHAUSTED = Diagnosis(
    Topic.RULES,
    "snat-ports-exhausted",
    Severity.ERROR,
    "a TCP connection was dropped in POST_ROUTING, while `insert_failed` of `conntrack -S` grew",
    "The source NAT found no free source port for this destination.",
    "Use more addresses for the NAT, keep connections open, or do not masquerade this traffic.",
)
REDIRECT_WITHOUT_LISTENER = Diagnosis(
    Topic.RULES,
    "redirect-without-listener",
    Severity.ERROR,
    "a rule of the pod's own namespace redirected the packet to a local port where nothing listens",
    "A service mesh's rules are in place, but its proxy is not running.",
    "Look at the pod's sidecar: it has not started, or ended before the application.",
)
HAIRPIN_NOT_MASQUERADED = Diagnosis(
    Topic.RULES,
    "hairpin-not-masqueraded",
    Severity.ERROR,
    "a Service sent a pod to itself, and the packet came back with the pod's own address as its source (IP_LOCAL_SOURCE)",
    "No rule masqueraded it: kube-proxy's own rule for this is missing, or another translated the packet before.",
    "Compare the node's rules with kube-proxy's: the endpoint's chain marks the pod's own packets (KUBE-MARK-MASQ), or the set "
    "hairpin-connections has the endpoint. On a bridge, look at its hairpin mode as well.",
    "__fib_validate_source, net/ipv4/fib_frontend.c",
)
DEVICE_RULE_DROP = Diagnosis(
    Topic.RULES,
    "device-rule-drop",
    Severity.ERROR,
    "a rule of a netdev table dropped the packet as it entered or left a device",
    "A firewall or a security agent of the node works below the network stack.",
    "`nft list ruleset` on the node shows the netdev tables; this tool does not evaluate them.",
)
