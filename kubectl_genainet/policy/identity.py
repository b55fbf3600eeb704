"""Parties as Cilium sees them: by the labels of their identity, each with the source that set it.

Source: Cilium, pkg/labels, pkg/policy/types (Requirement, LabelSelector), pkg/k8s (GetPodMetadata). A pod has the labels of
its object and of its namespace, its service account and its cluster, all of source "k8s", as far as the agent's list of
identity labels takes them. What is no pod has reserved labels: host, remote-node, kube-apiserver, world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kubectl_genainet.policy.matching.cidr import Address
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import YES, Match, no
from kubectl_genainet.policy.matching.selectors import NAMESPACE_NAME_LABEL, Operator, Requirement, Selector
from kubectl_genainet.policy.model import Term

POD_NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CLUSTER = "io.cilium.k8s.policy.cluster"
_OWNED = "io.cilium.k8s"  # labels of a Pod object that begin so are not taken over
_NODE_KEYS = frozenset({"host", "remote-node"})


class LabelTerm(msgspec.Struct, frozen=True):
    """One requirement of an endpoint selector. `source` is "k8s", "reserved", …, or "any".

    `doubt` says why it is not known which of `values` is required, where the selector gives the label several.
    """

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()
    doubt: str = ""

    def holds(self, present: bool, value: str) -> bool:
        match self.operator:
            case Operator.IN:
                return present and value in self.values
            case Operator.NOT_IN:
                return not present or value not in self.values
            case Operator.EXISTS:
                return present
            case Operator.DOES_NOT_EXIST:
                return not present

    def __str__(self) -> str:
        key = f"{self.source}:{self.key}" if self.source not in ("any", "k8s") else self.key
        match self.operator:
            case Operator.IN if self.values == ("",):
                return key
            case Operator.IN if len(self.values) == 1:
                return f"{key}={self.values[0]}"
            case Operator.IN:
                return f"{key} in ({', '.join(self.values)})"
            case Operator.NOT_IN:
                return f"{key} not in ({', '.join(self.values)})"
            case Operator.EXISTS:
                return f"{key} present"
            case Operator.DOES_NOT_EXIST:
                return f"{key} absent"


class LabelValue(msgspec.Struct, frozen=True):
    """A label of an identity: `present` is None where it can't be told, for the reason `why`."""

    present: bool | None
    value: str = ""
    why: str = ""


ABSENT = LabelValue(False)


@dataclass(frozen=True)
class IdentityScheme:
    """How one cluster's parties get their identities.

    `takes` says of a label's key whether it is part of an identity, None where an option that was not read decides.
    `api_servers` are addresses, `api_nodes` the nodes that have one; both None where they were not read.
    """

    takes: Callable[[str], bool | None]
    cluster: str = "default"
    cluster_known: bool = False
    api_servers: frozenset[Address] | None = None
    api_nodes: frozenset[str] = frozenset()
    dual_stack: bool = False
    families_known: bool = True  # `dual_stack` is what the agent's option says, not a guess from addresses
    version: int = 4  # of addresses, where the cluster has one family only
    node_labels: bool = False

    def label(self, term: LabelTerm, party: PolicyParty, own: PolicyParty) -> LabelValue:
        """The label that a requirement asks for."""
        if party.kind is PartyKind.POD:
            return self._of_pod(term.key, party) if term.source in ("k8s", "any") else ABSENT
        if term.source in ("reserved", "any"):
            value = self.reserved(term.key, party, own)
            if value.present is not False:
                return value
        if term.source in ("node", "any") and self.node_labels and party.node_labels is not None:
            return LabelValue(term.key in party.node_labels, party.node_labels.get(term.key, ""))
        if term.source in ("cidr", "cidrgroup", "fqdn") and party.kind is PartyKind.OUTSIDE:
            return LabelValue(None, why=f"labels of source {term.source} are not evaluated")
        return ABSENT

    def _of_pod(self, key: str, party: PolicyParty) -> LabelValue:
        value = self._set_on_pod(key, party)
        if not value.present:
            return value
        takes = self.takes(key)
        if takes is None:
            why = f"label {key} may be no part of an identity: the agent's option labels was not read"
            return LabelValue(None, value.value, why)
        return value if takes else ABSENT

    def _set_on_pod(self, key: str, party: PolicyParty) -> LabelValue:
        if key == POD_NAMESPACE:
            return LabelValue(True, party.namespace)
        if key == SERVICE_ACCOUNT:
            return LabelValue(True, party.service_account)
        if key == CLUSTER:
            if self.cluster_known:
                return LabelValue(True, self.cluster)
            return LabelValue(None, why="the agent's option cluster-name was not read")
        if not key.startswith(NAMESPACE_LABELS):
            owned = key.startswith(_OWNED)
            return LabelValue(True, party.labels[key]) if key in party.labels and not owned else ABSENT
        name = key.removeprefix(NAMESPACE_LABELS)
        if not party.namespace_known and name != NAMESPACE_NAME_LABEL:
            why = f"the labels of namespace {party.namespace} are not known: no such Namespace was read"
            return LabelValue(None, why=why)
        return LabelValue(name in party.namespace_labels, party.namespace_labels.get(name, ""))

    def reserved(self, name: str, party: PolicyParty, own: PolicyParty) -> LabelValue:
        """Whether an identity has a reserved label."""
        if party.kind is PartyKind.POD:
            return ABSENT
        if name == "kube-apiserver":
            return self._api_server(party)
        if party.kind is PartyKind.OUTSIDE:
            return self._world(name, party)
        if name not in _NODE_KEYS:
            return ABSENT
        runs = party.runs(own)
        if runs is None:
            return LabelValue(None, why=f"the node of {own.text} is not known")
        return LabelValue(runs is (name == "host"))

    def _world(self, name: str, party: PolicyParty) -> LabelValue:
        """Whether what is outside has a label of the world: one for all, or under dual stack one for each IP version."""
        if name not in _WORLD:
            return ABSENT
        if (self.dual_stack or not self.families_known) and party.address is None and name != "world":
            return LabelValue(None, why=f"the addresses of {party.text} are not known")
        single, dual = name == "world", party.address is not None and name == f"world-ipv{party.address.version}"
        if not self.families_known and single is not dual:
            return LabelValue(
                None, why="the agent's option enable-ipv6 was not read: the world has other labels with it"
            )
        return LabelValue(dual if self.dual_stack else single)

    def _api_server(self, party: PolicyParty) -> LabelValue:
        if party.api_server:
            return LabelValue(True)
        if self.api_servers is None:
            return LabelValue(None, why="the addresses of the API servers are not known")
        is_node = party.kind is PartyKind.HOST and bool(party.node) and party.node in self.api_nodes
        return LabelValue(is_node or (party.address is not None and party.address in self.api_servers))


class IdentityPeer(msgspec.Struct, frozen=True):
    """Parties by the labels of their identity: every term must hold. `namespace` is the only one it can select, if known.

    `unknown_too`: it selects the identity that stands for every one that is not known, and so everything but nodes.
    """

    terms: tuple[LabelTerm, ...]
    identities: IdentityScheme
    field: str
    namespace: str = ""
    unknown_too: bool = False

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if self.unknown_too and party.kind is not PartyKind.HOST:
            return YES
        unsure: Match | None = None
        for depth, term in enumerate(self.terms):
            label = self.identities.label(term, party, own)
            if label.present is None:
                unsure = unsure or Match(None, why=label.why)
            elif not term.holds(label.present, label.value):
                return no(*self._failed(term, party, label), self.field, depth)
            elif term.doubt:
                unsure = unsure or Match(None, why=term.doubt)
        return unsure or YES

    def by_labels(self) -> tuple[Selector, Selector] | None:
        """The terms as selectors of pods by their own labels and by their namespace's, with `namespace` apart; None where
        they are about more."""
        if self.unknown_too or any(term.doubt for term in self.terms):
            return None
        pods, namespaces = [], []
        for term in self.terms:
            if term.key == POD_NAMESPACE:
                if term.source != "k8s":
                    return None
                only = term.operator is Operator.IN and term.values == (self.namespace,)
                if only or (term.operator is Operator.EXISTS and self.identities.takes(POD_NAMESPACE)):
                    continue
                return None
            if term.source not in ("k8s", "any") or not self.identities.takes(term.key):
                return None
            if term.key.startswith(NAMESPACE_LABELS):
                key = term.key.removeprefix(NAMESPACE_LABELS)
                namespaces.append(Requirement(key, term.operator, term.values))
            elif term.key.startswith(_OWNED):
                return None
            else:
                pods.append(Requirement(term.key, term.operator, term.values))
        return Selector(tuple(pods)), Selector(tuple(namespaces))

    def _failed(self, term: LabelTerm, party: PolicyParty, label: LabelValue) -> tuple[Term, str, str]:
        if party.kind is not PartyKind.POD:
            where = party.text if party.kind is PartyKind.HOST else f"{party.text}, outside the cluster"
            return (Term.ENTITY if term.source == "reserved" else Term.POD), self._wanted(term), where
        if term.key == POD_NAMESPACE:
            return Term.NAMESPACE, self._wanted(term), party.namespace
        if term.key == SERVICE_ACCOUNT:
            return Term.SERVICE_ACCOUNT, self._wanted(term), party.service_account
        if term.key.startswith(NAMESPACE_LABELS):
            name = term.key.removeprefix(NAMESPACE_LABELS)
            return Term.NAMESPACE_LABELS, self._wanted(term), _shown(name, label)
        if term.source == "reserved":
            return Term.ENTITY, self._wanted(term), party.text
        if not label.present and term.key in party.labels:
            return Term.POD_LABELS, self._wanted(term), f"label {term.key} is no part of the pod's identity"
        return Term.POD_LABELS, self._wanted(term), _shown(term.key, label)

    @staticmethod
    def _wanted(term: LabelTerm) -> str:
        if term.key == POD_NAMESPACE:
            if term.operator is Operator.EXISTS:
                return "a pod"
            if term.operator is Operator.IN:
                return f"a pod in namespace {' or '.join(term.values)}"
        return str(term).replace(NAMESPACE_LABELS, "")

    @property
    def looks_at_node(self) -> bool:
        """Whether it tells the node that runs the pod from others."""
        return any(t.source in ("reserved", "any") and t.key in _NODE_KEYS for t in self.terms)


def _shown(key: str, label: LabelValue) -> str:
    return f"{key}={label.value}" if label.present else f"no label {key}"


# Entities that are a set of reserved labels; "cluster" and "cluster-mesh" select pods besides.
_IN_CLUSTER = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")
_WORLD = ("world", "world-ipv4", "world-ipv6")


class EntityPeer(msgspec.Struct, frozen=True):
    """Cilium's entities: parties by what they are. Source: Cilium, pkg/policy/api/entity.go."""

    entity: str
    field: str
    identities: IdentityScheme

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if self.entity == "all":
            return YES
        names: tuple[str, ...] = (self.entity,)
        if self.entity in ("cluster", "cluster-mesh"):
            if party.kind is not PartyKind.OUTSIDE:
                return YES
            names = _IN_CLUSTER if self.identities.api_servers is not None else ()
        elif self.entity == "world" and party.kind is PartyKind.OUTSIDE:
            return YES  # whatever the IP version
        unsure = ""
        for name in names:
            label = self.identities.reserved(name, party, own)
            if label.present:
                return YES
            unsure = unsure or label.why
        if unsure:
            return Match(None, why=unsure)
        return no(Term.ENTITY, self.entity, party.text, self.field)

    @property
    def looks_at_node(self) -> bool:
        return self.entity in _NODE_KEYS
