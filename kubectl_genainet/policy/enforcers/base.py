"""What an enforcer is to the policy engine: how it is found, and where it deviates from the API, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction


class EnforcerName(Enum):
    """As --enforcer takes it."""

    CILIUM = "cilium"
    CALICO = "calico"
    ANTREA = "antrea"
    OVN = "ovn"
    KUBE_ROUTER = "kube-router"
    VPC_CNI = "vpc-cni"
    KUBE_NETWORK_POLICIES = "kube-network-policies"
    AZURE_NPM = "azure-npm"
    WEAVE = "weave"
    NONE = "none"
    UNKNOWN = "unknown"  # judged by the API alone


class Trait(Enum):
    """What an enforcer does otherwise than the API says. Each can be undone alone, to see whether it decides a flow."""

    OWN_NODE = "own node"  # egress to the pod's own node is judged
    BLOCKS = "blocks"  # blocks select neither pods nor nodes
    IDENTITIES = "identities"  # selectors see the labels of identities only
    EVERY_RULE = "every rule"  # rules of a direction that policyTypes leaves out apply
    NAMED_PORTS = "named ports"  # those of pods on the host network match nothing
    OWNED_PODS = "owned pods"  # only pods that a controller made have policies
    ALL_ISOLATED = "all isolated"  # pods without a policy are isolated
    NODE_CLOSED = "node closed"  # pods never reach their own node
    HOST_GROUP = "host group"  # a namespace stands for the nodes
    ONE_CHAIN = "one chain"  # between pods that a policy selects, its rules of both directions admit either
    BASELINE = "baseline"  # a NetworkPolicy of either direction keeps the baseline from being consulted
    UNREAD = "unread"  # kinds of policies that nothing reads


class Doubt(Enum):
    """What a release of an enforcer is known to take otherwise than the API says, though not in every case or build."""

    END_PORT = "endPort"  # of a range of ports the first alone counts
    DEFAULT_DENY = "enableDefaultDeny"  # it is no field: rules always isolate
    SHARED_NAMES = "shared names"  # in egress, a port by a name that stands for several numbers matches nothing
    DEEP_NAMES = "deep names"  # a leading **. of a pattern for names stands for one label
    SIDECAR_PORTS = "sidecar ports"  # ports of sidecars have no names
    SCTP = "SCTP"  # what no policy drops is dropped all the same
    JOINED_EXCEPTS = "joined excepts"  # the exceptions of a rule's blocks hold for all its peers
    SHARED_EXCEPTS = "shared excepts"  # an exception holds for every wider block of the pod's policies
    NAMESPACE_LABELS = "namespace labels"  # peers by a namespace's labels are in the policy's own namespace as well
    NAMES = "names"  # ports by their names are not known
    LATE_PRIORITIES = "late priorities"  # AdminNetworkPolicies above a priority are not made


class OwnNodeClosed(msgspec.Struct, frozen=True):
    """Pods that are isolated by an option alone are closed to their own node too, and why; not `certain` in every release."""

    why: str
    certain: bool


class Deviation(msgspec.Struct, frozen=True):
    """One documented way in which an enforcer does not do what the API says, and the flows that it can decide."""

    text: str
    source: str
    trait: Trait
    directions: tuple[Direction, ...] = (Direction.EGRESS, Direction.INGRESS)
    peers: tuple[PartyKind, ...] = (PartyKind.POD, PartyKind.HOST, PartyKind.OUTSIDE)
    own_node: bool | None = None  # True: only between a pod and its node; False: only between others
    not_owned: bool = False  # only for pods that no controller made

    def fits(self, direction: Direction, peer: PartyKind, own_node: bool, owned: bool) -> bool:
        """Whether the deviation can have decided a direction of a flow."""
        return (
            direction in self.directions
            and peer in self.peers
            and self.own_node in (None, own_node)
            and not (self.not_owned and owned)
        )


class UnreadKinds(msgspec.Struct, frozen=True):
    """Kinds of policies that an enforcer does not enforce, and why; not `certain` where that can't be told."""

    group: str
    kinds: tuple[str, ...]
    why: str
    certain: bool = True


class Enforcer(msgspec.Struct, frozen=True):
    """A program that enforces policies. `evidence` names the object that shows it; empty where it was given by name.

    `certain`: it was given by name, or its program runs. `stopped` is why it enforces nothing.
    `to_own_node_exempt`: a flow from a pod to the node that runs it passes, whatever NetworkPolicy isolates the pod.
    `isolates_all` is the object by which pods without a policy are isolated: in each direction that no policy isolates them
    in, or with `isolates_unselected` those that no policy selects at all. `node_closed` is the object by which no pod
    reaches its own node, `host_namespace` the namespace that stands for the nodes.
    `service_addresses`: egress is judged before address translation: by a Service's address and port.
    `other_family_open` is why policies may not reach what a pod sends to addresses of a version that it has none of; "" where
    they do.
    `keeps_clients`: what comes through a Service from outside keeps its source address, whatever externalTrafficPolicy says.
    `doubts` are what its release may take otherwise, each with the reason.
    """

    name: EnforcerName
    title: str
    evidence: str = ""
    deviations: tuple[Deviation, ...] = ()
    to_own_node_exempt: bool = True
    owned_pods_only: bool = False
    certain: bool = True
    stopped: str = ""
    unread: tuple[UnreadKinds, ...] = ()
    isolates_all: ObjectRef | None = None
    isolates_unselected: bool = False
    own_node_closed: OwnNodeClosed | None = None
    node_closed: ObjectRef | None = None
    host_namespace: str = ""
    service_addresses: bool = False
    other_family_open: str = ""
    keeps_clients: bool = False
    doubts: tuple[tuple[Doubt, str], ...] = ()

    @property
    def why_no_sctp(self) -> str:
        """Why what policies say of SCTP may not be what becomes of it; "" where nothing is known against it."""
        return next((why for doubt, why in self.doubts if doubt is Doubt.SCTP), "")

    @property
    def inert(self) -> bool:
        """Whether no policy has any effect."""
        return self.name is EnforcerName.NONE or bool(self.stopped)

    @property
    def traits(self) -> frozenset[Trait]:
        return frozenset(d.trait for d in self.deviations)


class Known(msgspec.Struct, frozen=True):
    """An enforcer that can be recognised: each function gives the evidence in a snapshot, or an empty string.

    `find` looks for what runs, `traces` for objects of its kinds, which may be left over from an enforcer that has gone.
    `adapt` gives the enforcer as it is configured in a snapshot.
    """

    enforcer: Enforcer
    find: Callable[[ClusterSnapshot], str]
    traces: Callable[[ClusterSnapshot], str] = lambda snapshot: ""
    adapt: Callable[[Enforcer, ClusterSnapshot], Enforcer] = lambda enforcer, snapshot: enforcer


UNKNOWN = Enforcer(EnforcerName.UNKNOWN, "an enforcer that is not known from these objects")


def running(snapshot: ClusterSnapshot, image: str, container: str = "") -> Iterator[tuple[KubeObject, dict[str, Any]]]:
    """DaemonSets, and the pods of such, with a container of this image (a regular expression over its path, without
    registry and tag) and, if given, of this name."""
    wanted = re.compile(rf"(^|/)({image})$")
    for path, obj in snapshot.agents_by_image.items():
        if wanted.search(path):
            yield from (pair for pair in obj if not container or pair[1].get("name") == container)


def release_of(image: str) -> tuple[int, ...] | None:
    """The release that the tag of an image names; None for a tag that names none, and for a digest alone."""
    match = re.search(r":v?(\d+)\.(\d+)(?:\.(\d+))?[^/]*$", image.partition("@")[0])
    return tuple(int(number) for number in match.groups() if number is not None) if match else None


def running_release(snapshot: ClusterSnapshot, image: str) -> tuple[int, ...] | None:
    """The release of the containers with this image, as `running` takes it; the oldest where there are several."""
    releases = (release_of(str(container.get("image", ""))) for _, container in running(snapshot, image))
    return min(filter(None, releases), default=None)


def agent(image: str, container: str = "") -> Callable[[ClusterSnapshot], str]:
    """Finds an enforcer by the image of its agent."""

    def find(snapshot: ClusterSnapshot) -> str:
        return next((str(obj.ref) for obj, _ in running(snapshot, image, container)), "")

    return find


def first_of(*finders: Callable[[ClusterSnapshot], str]) -> Callable[[ClusterSnapshot], str]:
    return lambda snapshot: next(filter(None, (find(snapshot) for find in finders)), "")


def any_object(group: str, *kinds: str) -> Callable[[ClusterSnapshot], str]:
    """Finds an enforcer by objects of its own kinds."""

    def find(snapshot: ClusterSnapshot) -> str:
        return next((str(o.ref) for kind in kinds for o in snapshot.of(kind, group)), "")

    return find


def arguments_of(container: dict[str, Any]) -> list[str]:
    return [str(word) for field in ("command", "args") for word in _list_in(container, field)]


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """The variables of a container that have a plain value."""
    variables = (entry for entry in _list_in(container, "env") if isinstance(entry, dict))
    return {str(entry["name"]): str(entry["value"]) for entry in variables if "name" in entry and "value" in entry}


def _list_in(container: dict[str, Any], field: str) -> list[Any]:
    members = container.get(field)
    return members if isinstance(members, list) else []
