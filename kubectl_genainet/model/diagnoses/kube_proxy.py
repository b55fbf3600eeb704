"""What differs between the API and what kube-proxy has programmed on a node."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Suspect, Topic
from kubectl_genainet.model.finding import Severity

_SERVICE = "https://kubernetes.io/docs/reference/networking/virtual-ips/"

STALE_ENDPOINT_RULES = Diagnosis(
    Topic.KUBE_PROXY,
    "stale-endpoint-rules",
    Severity.ERROR,
    "the node still sends to an endpoint that no EndpointSlice has ready or serving",
    "kube-proxy on that node lags behind the API, or has stopped: a share of the connections goes to a pod that is gone.",
    "Look at kube-proxy on that node; restart it if it does not catch up.",
    _SERVICE,
    blames=frozenset({Suspect.RULES}),
)
MISSING_ENDPOINT_RULES = Diagnosis(
    Topic.KUBE_PROXY,
    "missing-endpoint-rules",
    Severity.WARNING,
    "an endpoint is ready, and the node does not send to it",
    "kube-proxy on that node lags behind the API: the other endpoints take the load. An error where none is programmed.",
    "Look at kube-proxy on that node; restart it if it does not catch up.",
    _SERVICE,
    blames=frozenset({Suspect.RULES}),
)
SERVICE_WITHOUT_RULES = Diagnosis(
    Topic.KUBE_PROXY,
    "service-without-rules",
    Severity.ERROR,
    "no rule takes a cluster, external or load balancer address of the Service, or its node port",
    "Connections to that address fail on this node.",
    "Look at kube-proxy on that node; restart it if it does not catch up.",
    _SERVICE,
    blames=frozenset({Suspect.RULES}),
)
RULES_WITHOUT_SERVICE = Diagnosis(
    Topic.KUBE_PROXY,
    "rules-without-service",
    Severity.WARNING,
    "rules for a Service, or for an address or node port of it, that the API does not have",
    "The Service was deleted or changed, and the node's rules were not.",
    "Look at kube-proxy on that node; restart it if it does not catch up.",
    _SERVICE,
    blames=frozenset({Suspect.RULES}),
)
SERVICE_TAKEN_BY_OTHERS = Diagnosis(
    Topic.KUBE_PROXY,
    "service-taken-by-others",
    Severity.ERROR,
    "another program's translation (portmap, a rule by hand), or a Service with the same address and port, takes the packets",
    "The first translation of a connection decides, so the Service's own rules never see these packets.",
    "The finding names the rule, and the Service where it is one: find out what wrote it, or give one of them another address.",
    "https://www.netfilter.org/documentation/HOWTO/NAT-HOWTO.html",
    blames=frozenset({Suspect.RULES}),
)
HOST_PORT_TAKEN = Diagnosis(
    Topic.KUBE_PROXY,
    "host-port-taken",
    Severity.ERROR,
    "packets to a pod's host port go elsewhere: to a Service with that port, another pod's host port, a rule of another program",
    "Of all that ask for a port of the node, the one whose rule stands first gets every packet. Info where the pod is the "
    "Service's own way in, or one of its endpoints.",
    "Give the pod or the Service another port. Rules that send to an address of no pod were left behind: delete them.",
    "https://www.cni.dev/plugins/current/meta/portmap/",
    blames=frozenset({Suspect.RULES}),
)
HOST_PORT_WITHOUT_RULES = Diagnosis(
    Topic.KUBE_PROXY,
    "host-port-without-rules",
    Severity.WARNING,
    "no rule sends a pod's host port to the pod, and no program (Cilium) is there that serves host ports without rules",
    "The rules are made when the pod starts and by nobody later: a firewall that reloads deletes them, or there is no portmap.",
    "Restart the pod; see that the CNI configuration has portmap, and that nothing flushes the nat table.",
    "https://www.cni.dev/plugins/current/meta/portmap/",
    blames=frozenset({Suspect.RULES}),
)
SERVICE_NOT_TRACKED = Diagnosis(
    Topic.KUBE_PROXY,
    "service-not-tracked",
    Severity.INFO,
    "a rule takes the packets out of connection tracking (NodeLocal DNSCache does), so that no rule translates them",
    "The Service's rules never see them: a program on the node that has the Service's address answers, or nobody does.",
    "Where nothing answers, see whether the program (node-local-dns) runs; its rules outlive it.",
    "https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/",
    blames=frozenset({Suspect.RULES}),
)
SERVICE_PARTLY_REFUSED = Diagnosis(
    Topic.KUBE_PROXY,
    "service-partly-refused",
    Severity.WARNING,
    "rules drop or reject a part of the connections on their way, with the share and the rule",
    "Some clients, or a share of the connections of all of them, do not get through.",
    "The finding names the rule; find out what wrote it.",
    _SERVICE,
    blames=frozenset({Suspect.RULES}),
)
TOPOLOGY_HINTS_IGNORED = Diagnosis(
    Topic.KUBE_PROXY,
    "topology-hints-ignored",
    Severity.WARNING,
    "the node also sends to endpoints that the hints keep for other zones or nodes",
    "Connections cross zones that were meant to stay within one.",
    "Check that the node has its zone label, and that kube-proxy on it is running. A kube-proxy can miss that label when it "
    "starts (seen with 1.37), and ignores the hints of zones from then on: restart it.",
    "https://kubernetes.io/docs/concepts/services-networking/topology-aware-routing/",
)
TRAFFIC_POLICY_IGNORED = Diagnosis(
    Topic.KUBE_PROXY,
    "traffic-policy-ignored",
    Severity.WARNING,
    "the node also sends to endpoints of other nodes for an address whose traffic policy is Local",
    "Connections leave the node that were meant to stay on it, or lose their client's address.",
    "Look at kube-proxy on that node; restart it if it does not catch up.",
    "https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-policies",
)
STALE_CONNECTION = Diagnosis(
    Topic.KUBE_PROXY,
    "stale-connection",
    Severity.ERROR,
    "conntrack sends open connections to what is no endpoint, or does not translate them (needs `conntrack -L`)",
    "The kernel asks the connection table before the rules: the client keeps its dead backend. Info for TCP, whose next "
    "connection meets the rules.",
    "Delete the entries with the command of the finding; the next packet meets the rules.",
    "conntrack(8)",
)
PROXY_MODE_MISMATCH = Diagnosis(
    Topic.KUBE_PROXY,
    "proxy-mode-mismatch",
    Severity.WARNING,
    "the node's rules are of another mode than kube-proxy's ConfigMap says",
    "kube-proxy has not been restarted since its configuration changed, or reads another one.",
    "Restart kube-proxy on that node, and clean up the rules of the former mode.",
    _SERVICE,
)
LEFTOVER_PROXY_RULES = Diagnosis(
    Topic.KUBE_PROXY,
    "leftover-proxy-rules",
    Severity.WARNING,
    "rules of several modes, or in both variants of iptables",
    "Packets meet the older rules too, and may go to endpoints that are long gone.",
    "Remove those of the mode that is not used. `kube-proxy --cleanup` removes those in use as well: no Service works then.",
    _SERVICE,
)
NO_PROXY_RULES = Diagnosis(
    Topic.KUBE_PROXY,
    "no-proxy-rules",
    Severity.ERROR,
    "kube-proxy has programmed nothing on the node",
    "kube-proxy does not run there, or another program serves Services (Cilium without kube-proxy).",
    "Look for kube-proxy's pod on that node.",
    _SERVICE,
)
NODES_DISAGREE = Diagnosis(
    Topic.KUBE_PROXY,
    "nodes-disagree",
    Severity.WARNING,
    "the endpoints of a cluster address differ from node to node",
    "Whether a connection works depends on the node that its client runs on.",
    "Look at kube-proxy on the nodes that differ from the EndpointSlices.",
    _SERVICE,
)
