"""The peers of a rule: each says whether it selects a party, and if not, which term fails."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from kubectl_genainet.policy.matching.cidr import Address, AddressBlock
from kubectl_genainet.policy.matching.domains import domain_matches
from kubectl_genainet.policy.matching.expressions import NAMESPACE_NAME, Expression, keys_of
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.selectors import EVERYTHING, NAMESPACE_NAME_LABEL, Selector, label_text
from kubectl_genainet.policy.model import FailedTerm, Term


class Match(NamedTuple):
    """Whether a term selects: None where it can't be told, for the reason `why`.

    `depth` is how many terms were met before the one that fails: of several peers the nearest miss is shown.
    """

    value: bool | None
    failed: FailedTerm | None = None
    depth: int = 0
    why: str = ""


YES = Match(True)
_KNOWN_BY_NAME = {NAMESPACE_NAME_LABEL, NAMESPACE_NAME}  # labels of a namespace whose object was not read


class Peer(Protocol):
    """Whom a term selects. `own` is the pod whose policy it is: some terms compare with it."""

    def match(self, party: PolicyParty, own: PolicyParty) -> Match: ...


def no(term: Term, wanted: object, actual: str, field: str, depth: int = 0) -> Match:
    return Match(False, FailedTerm(term, str(wanted), actual, field), depth)


def select_namespace(selector: Selector, party: PolicyParty, field: str) -> Match:
    """Whether a selector selects the namespace of a pod."""
    failed = selector.failed(party.namespace_labels)
    if not party.namespace_known:
        unsure = [r for r in selector.requirements if r.key != NAMESPACE_NAME_LABEL]
        if unsure and (failed is None or failed.key != NAMESPACE_NAME_LABEL):
            return Match(
                None, why=f"the labels of namespace {party.namespace} are not known: no such Namespace was read"
            )
    if failed is None:
        return YES
    return no(Term.NAMESPACE_LABELS, failed, label_text(party.namespace_labels, failed.key), field)


def is_pod(party: PolicyParty, wanted: str, field: str) -> Match:
    """Selectors of pods and namespaces select pods that have a network of their own (API reference, KEP-2091)."""
    if party.kind is PartyKind.POD:
        return YES
    if party.kind is PartyKind.HOST and party.name:
        return no(Term.POD, wanted, f"{party.text}, which uses its node's network", field)
    actual = party.text if party.kind is PartyKind.HOST else f"{party.text}, outside the cluster"
    return no(Term.POD, wanted, actual, field)


class AnyPeer(msgspec.Struct, frozen=True):
    """Everything, inside and outside the cluster."""

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        return YES


class PodsPeer(msgspec.Struct, frozen=True):
    """Pods by labels, in one namespace (`namespace`) or in those that `namespaces` selects."""

    pods: Selector = EVERYTHING
    namespaces: Selector = EVERYTHING
    namespace: str = ""
    pods_field: str = ""
    namespaces_field: str = ""

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        kind = is_pod(party, "a pod", self.pods_field or self.namespaces_field)
        if not kind.value:
            return kind
        if self.namespace:
            if party.namespace != self.namespace:
                wanted = f"a pod in namespace {self.namespace}"
                return no(Term.NAMESPACE, wanted, party.namespace, self.pods_field, 1)
        else:
            namespace = select_namespace(self.namespaces, party, self.namespaces_field)
            if not namespace.value:
                if namespace.value is None and not self.pods.matches(party.labels):
                    return self._pods_failed(party)
                return namespace._replace(depth=1)
        return YES if self.pods.matches(party.labels) else self._pods_failed(party)

    def _pods_failed(self, party: PolicyParty) -> Match:
        failed = self.pods.failed(party.labels)
        return no(Term.POD_LABELS, failed, label_text(party.labels, failed.key if failed else ""), self.pods_field, 2)


class SameLabelsPeer(msgspec.Struct, frozen=True):
    """Pods in namespaces whose values for some labels are those (or not those) of the subject's namespace.

    Source: network-policy-api v0.1.0, NamespacedPeer.sameLabels and notSameLabels.
    """

    keys: tuple[str, ...]
    same: bool
    pods: Selector
    field: str
    pods_field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        kind = is_pod(party, "a pod", self.field)
        if not kind.value:
            return kind
        if not (party.namespace_known and own.namespace_known):
            return Match(None, why="the labels of both namespaces are needed, and not both are known")
        have_all = all(k in own.namespace_labels and k in party.namespace_labels for k in self.keys)
        equal = have_all and all(own.namespace_labels[k] == party.namespace_labels[k] for k in self.keys)
        if not have_all or equal is not self.same:
            wanted = ", ".join(self.keys) + (" as" if self.same else " other than") + f" in namespace {own.namespace}"
            actual = ", ".join(label_text(party.namespace_labels, k) for k in self.keys)
            return no(Term.NAMESPACE_LABELS, wanted, actual, self.field, 1)
        failed = self.pods.failed(party.labels)
        return (
            YES
            if failed is None
            else no(Term.POD_LABELS, failed, label_text(party.labels, failed.key), self.pods_field, 2)
        )


class BlockPeer(msgspec.Struct, frozen=True):
    """Addresses in a block and not in its exceptions.

    The API leaves open whether pods match by address. Kubernetes' enforcers apply blocks to pods too, after address
    translation; Cilium doesn't (`outside_only`: identity goes before address, but for the kinds of parties in `also`).
    """

    block: AddressBlock
    excepts: tuple[AddressBlock, ...]
    field: str
    outside_only: bool = False
    also: frozenset[PartyKind] = frozenset()

    def holds(self, address: Address) -> bool:
        return self.block.holds(address) and not any(e.holds(address) for e in self.excepts)

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if self.outside_only and party.kind is not PartyKind.OUTSIDE and party.kind not in self.also:
            kind = "pod" if party.kind is PartyKind.POD else "node"
            return no(
                Term.ADDRESS,
                f"{self} outside the cluster",
                f"{party.text}, and Cilium's blocks select no {kind}",
                self.field,
            )
        if party.address is None:
            if party.domain:
                return Match(None, why=f"the addresses of {party.domain} are not known")
            return Match(None, why=f"the address of {party.text} is not known")
        if self.holds(party.address):
            return YES
        hit = next((e for e in self.excepts if e.holds(party.address)), None)
        actual = f"{party.address}" + (f", in except {hit}" if hit and self.block.holds(party.address) else "")
        return no(Term.ADDRESS, self, actual, self.field, 1 if hit else 0)

    def __str__(self) -> str:
        return f"{self.block}" + (f" except {', '.join(map(str, self.excepts))}" if self.excepts else "")


class NodesPeer(msgspec.Struct, frozen=True):
    """Nodes by labels: their addresses, and the pods that use their network."""

    nodes: Selector
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is not PartyKind.HOST:
            return no(Term.NODE, f"a node with {self.nodes}", party.text, self.field)
        if party.node_labels is None:
            if not self.nodes.requirements:
                return YES
            return Match(None, why=f"the labels of the node of {party.text} are not known")
        failed = self.nodes.failed(party.node_labels)
        if failed is None:
            return YES
        return no(Term.NODE, failed, label_text(party.node_labels, failed.key), self.field, 1)


class DomainsPeer(msgspec.Struct, frozen=True):
    """Destinations outside the cluster by domain name.

    `patterns` are those of policy/domains.py; `names` are as the policy has them.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        wanted = " or ".join(self.names)
        if party.kind is not PartyKind.OUTSIDE:
            return no(Term.DOMAIN, wanted, f"{party.text}, inside the cluster", self.field)
        if not party.domain:
            return Match(None, why=f"whether {party.text} is an address of {wanted} depends on DNS")
        if any(domain_matches(p, party.domain) for p in self.patterns):
            return YES
        return no(Term.DOMAIN, wanted, party.domain, self.field)


class ServiceAccountPeer(msgspec.Struct, frozen=True):
    """Pods by the name of their service account; the selector's requirements are compared with that name."""

    names: Selector
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        account = party.service_account if party.kind is PartyKind.POD else ""
        failed = self.names.failed({r.key: account for r in self.names.requirements})
        if account and failed is None:
            return YES
        return no(Term.SERVICE_ACCOUNT, failed or self.names, account or party.text, self.field)


class NetworkSet(msgspec.Struct, frozen=True):
    """Calico's NetworkSet, or GlobalNetworkSet (without a namespace): addresses with labels, and their namespace's.

    `unread`: one that stands for those that could not be read, of whatever labels; they may hold addresses outside.
    """

    namespace: str
    labels: dict[str, str]
    namespace_labels: dict[str, str]
    namespace_known: bool
    blocks: Peer
    unread: bool = False


class ExpressionPeer(msgspec.Struct, frozen=True):
    """Calico's selectors: pods by expressions over their labels and their namespace's, and network sets by theirs.

    `namespace` restricts to one namespace; `only_global` (namespaceSelector "global()") to what has none.
    """

    selector: Expression
    namespaces: Expression
    text: str
    namespace: str
    all_namespaces: bool
    only_global: bool
    sets: tuple[NetworkSet, ...]
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is PartyKind.POD and not self.only_global:
            pod = self._pod(party)
            if pod.value is not False:
                return pod
        unsure: Match | None = None
        for labelled_set in self.sets:
            outside = party.kind is PartyKind.OUTSIDE
            holds = self._holds_set(labelled_set) if not labelled_set.unread else None if outside else False
            selected = labelled_set.blocks.match(party, own) if holds is not False else Match(False)
            if selected.value and holds:
                return YES
            if selected.value is not False:
                why = selected.why or f"the labels of namespace {labelled_set.namespace} are not known: it was not read"
                unsure = Match(None, why=why)
        if unsure is not None:
            return unsure
        labels_text = label_text(party.labels) if party.kind is PartyKind.POD else party.text
        return no(Term.POD_LABELS, self.text, labels_text, self.field, 1 if party.kind is PartyKind.POD else 0)

    def _pod(self, party: PolicyParty) -> Match:
        if self.namespace and party.namespace != self.namespace:
            return Match(False)
        own = {
            **party.labels,
            "projectcalico.org/namespace": party.namespace,
            "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": party.service_account,
        }
        if not self.selector.matches(own):
            return Match(False)
        if self.all_namespaces:
            return YES
        if not party.namespace_known and keys_of(self.namespaces) - _KNOWN_BY_NAME:
            return Match(None, why=f"the labels of namespace {party.namespace} are not known: it was not read")
        labels = {**party.namespace_labels, NAMESPACE_NAME: party.namespace}
        return Match(self.namespaces.matches(labels))

    def _holds_set(self, network_set: NetworkSet) -> bool | None:
        if (self.only_global and network_set.namespace) or not self.selector.matches(network_set.labels):
            return False
        if self.namespace:
            return network_set.namespace == self.namespace
        if self.all_namespaces or self.only_global:
            return True
        if network_set.namespace and not network_set.namespace_known and keys_of(self.namespaces) - _KNOWN_BY_NAME:
            return None
        return self.namespaces.matches(network_set.namespace_labels)


class NobodyPeer(msgspec.Struct, frozen=True):
    """No party, for the reason `why`: an empty rule of Cilium, an empty list of peers."""

    field: str
    why: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        return no(Term.POD, f"nobody ({self.why})", party.text, self.field)


class UnknownPeer(msgspec.Struct, frozen=True):
    """A way to select peers that is not evaluated."""

    field: str
    why: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        return Match(None, why=self.why)


class OwnedPodPeer(msgspec.Struct, frozen=True):
    """Pods that a controller made, on nodes with Linux. Of others it is not known: the VPC CNI documents none."""

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.platform:
            return Match(
                None,
                why=f"{party.text} runs on {party.platform}, and the enforcer applies policies on Linux nodes only",
            )
        if party.owned:
            return YES
        return Match(
            None, why=f"{party.text} has no owner, and the enforcer applies policies to pods of controllers only"
        )


class AllOfPeer(msgspec.Struct, frozen=True):
    """Every part must select (Calico's entity rules)."""

    parts: tuple[Peer, ...]

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        unsure: Match | None = None
        for depth, part in enumerate(self.parts):
            selected = part.match(party, own)
            if selected.value is False:
                return selected._replace(depth=depth)
            if selected.value is None and unsure is None:
                unsure = selected
        return unsure or YES


class AnyOfPeer(msgspec.Struct, frozen=True):
    """At least one part must select."""

    parts: tuple[Peer, ...]

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        return best_match([part.match(party, own) for part in self.parts])


class NotPeer(msgspec.Struct, frozen=True):
    """The part must not select (Calico's notNets and notSelector)."""

    part: Peer
    term: Term
    wanted: str
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        selected = self.part.match(party, own)
        if selected.value is None:
            return selected
        return YES if selected.value is False else no(self.term, self.wanted, party.text, self.field)


def best_match(alternatives: list[Match]) -> Match:
    """Of alternatives: one that selects, else one that may, else the nearest miss."""
    best = Match(False)
    for match in alternatives:
        if match.value:
            return match
        if match.value is None:
            if best.value is False:
                best = match
        elif best.value is False and (best.failed is None or match.depth > best.depth):
            best = match
    return best
