"""What a check is: a function with a name, a docstring and a severity, and what it needs to be able to look.

    @check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"))
    def service_selector_matches_nothing(cluster: Cluster) -> Problems:
        \"\"\"A Service's selector matches no pod.

        Looks at …
        Why: …
        Source: https://…
        \"\"\"

The function yields a `Problem` for each fault, and a `NotChecked` for what it could not look at.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from kubectl_genainet.model.finding import Certainty, Evidence, NotChecked, ObjectRef, Remedy, Severity

if TYPE_CHECKING:
    from kubectl_genainet.doctor.objects.cluster import Cluster


class Area(Enum):
    """The areas of `--only`, in the order of the report."""

    CNI = "cni"
    POD_IP = "pod-ip"
    SERVICES = "services"
    NLB = "nlb"
    HEALTH = "health"
    INGRESS = "ingress"
    GATEWAY = "gateway"
    MESH = "mesh"
    POLICY = "policy"
    GLOBAL_POLICY = "global-policy"
    KUBE_PROXY = "kube-proxy"
    IP_SPACE = "ip-space"
    EBPF = "ebpf"
    SRIOV = "sriov"
    COREDNS = "coredns"
    NODELOCAL = "nodelocal"
    LOOKUPS = "lookups"
    PLACEMENT = "placement"
    EFA = "efa"
    GPU_NODES = "gpu-nodes"

    @property
    def title(self) -> str:
        return _TITLES[self]


_TITLES = {
    Area.CNI: "CNI and MTU",
    Area.POD_IP: "Pod IP set-up",
    Area.SERVICES: "Services and endpoints",
    Area.NLB: "Network load balancers",
    Area.HEALTH: "Health checks and model load time",
    Area.INGRESS: "Ingress",
    Area.GATEWAY: "Gateway API and its inference extension",
    Area.MESH: "Service mesh",
    Area.POLICY: "NetworkPolicy",
    Area.GLOBAL_POLICY: "FQDN and cluster-wide policy",
    Area.KUBE_PROXY: "kube-proxy",
    Area.IP_SPACE: "IP exhaustion",
    Area.EBPF: "eBPF data planes",
    Area.SRIOV: "SR-IOV",
    Area.COREDNS: "CoreDNS",
    Area.NODELOCAL: "NodeLocal DNSCache",
    Area.LOOKUPS: "Lookup habits",
    Area.PLACEMENT: "Placement and zones",
    Area.EFA: "EFA and NCCL",
    Area.GPU_NODES: "GPU nodes",
}


class Need(Enum):
    """Knowledge beyond the API's objects that a check can't do without; the value says what is missing."""

    NODES = "no agent told about the nodes (deploy the agent, or use a bundle recorded with it)"
    RULESETS = "no agent told about the nodes' packet rules (deploy the agent, or use a bundle recorded with it)"
    PACKETS = "no packets were recorded (run it on a bundle of `trace` or `drops`)"
    DNS = "no DNS measurements (deploy the agent and let doctor --measure, or use a bundle of `dns`)"
    FABRIC = "nobody measured by which way GPU pods talk (deploy the agent and let doctor --measure)"


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault as the check function tells it; the check's name and severity are added by the runner."""

    title: str
    object: ObjectRef | None
    evidence: tuple[Evidence, ...]
    remedy: Remedy | None = None
    detail: str = ""
    severity: Severity | None = None  # where it differs from the check's own
    refuted_by: tuple[str, str] | None = None  # kind and namespace of what would refute it, were it elsewhere
    rests_on: tuple[ObjectRef, ...] = ()  # what it is about beside the object and those of the evidence

    @property
    def about(self) -> tuple[ObjectRef, ...]:
        """Every object that has to be in one cluster for it to hold."""
        refs = (self.object, *(e.object for e in self.evidence), *self.rests_on)
        return tuple(dict.fromkeys(ref for ref in refs if ref is not None))


Problems = Iterator["Problem | NotChecked"]
CheckFunction = Callable[["Cluster"], Problems]


def always(cluster: Cluster) -> str:
    """The default for `applies`: the check makes sense on every cluster."""
    return ""


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check. `applies` returns why the check makes no sense on a cluster, or an empty string."""

    name: str
    area: Area
    severity: Severity
    needs: tuple[str | Need, ...]
    applies: Callable[[Cluster], str]
    run: CheckFunction
    doc: str
    own_namespace: bool = False

    @property
    def title(self) -> str:
        return self.doc.splitlines()[0].rstrip(".")


def check(
    area: Area,
    severity: Severity,
    *,
    needs: tuple[str | Need, ...] = (),
    applies: Callable[[Cluster], str] = always,
    own_namespace: bool = False,
) -> Callable[[CheckFunction], Check]:
    """Makes a function a check named after it, in kebab case.

    `needs` are kinds of objects and other knowledge without which the answer would be unknown: where one could not
    be read, the check is listed as not checked. `own_namespace`: the answer for a namespace depends on objects of that
    namespace only, so that a token which may read no other is enough.
    """

    def decorate(function: CheckFunction) -> Check:
        doc = inspect.getdoc(function)
        if not doc:
            raise TypeError(f"the check {function.__name__} has no docstring")
        return Check(function.__name__.replace("_", "-"), area, severity, needs, applies, function, doc, own_namespace)

    return decorate


def shortened(text: str, most: int = 300) -> str:
    """At most `most` characters of a text, with "…" at its end where there were more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def seen(obj: ObjectRef | None, field: str, value: Any, statement: str) -> Evidence:
    """Evidence from the API server, of its own state."""
    return Evidence(statement, Certainty.OBSERVED, obj, field, value)


def on_node(node: str, statement: str, value: Any = None, *, field: str = "", obj: ObjectRef | None = None) -> Evidence:
    """Evidence from a node: what the kernel reported to the agent."""
    return Evidence(statement, Certainty.OBSERVED, obj, field, value, node)


def derived(obj: ObjectRef | None, field: str, value: Any, statement: str) -> Evidence:
    """Evidence that follows from observed facts."""
    return Evidence(statement, Certainty.DERIVED, obj, field, value)


def assumed(obj: ObjectRef | None, field: str, value: Any, statement: str) -> Evidence:
    """Evidence that is likely, and that nothing reported."""
    return Evidence(statement, Certainty.ASSUMED, obj, field, value)
