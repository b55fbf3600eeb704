"""Blocks of addresses and groups of them: they select neither pods nor nodes, unless policy-cidr-match-mode says so.

Source: Cilium, pkg/policy/types (CIDRSelector.Matches): identity goes before address.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.identity import LabelTerm
from kubectl_genainet.policy.matching.cidr import Address, AddressBlock, as_spelled, block_of
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import YES, Match, no
from kubectl_genainet.policy.matching.selectors import Operator
from kubectl_genainet.policy.model import Term
from kubectl_genainet.policy.where import Where, unknown_fields

_OWNED = "io.cilium.k8s"


class _RawCidrGroupSpec(msgspec.Struct, frozen=True):
    external_cidrs: tuple[str, ...] = msgspec.field(default=(), name="externalCIDRs")


class _RawCidrGroup(msgspec.Struct, frozen=True):
    spec: _RawCidrGroupSpec = _RawCidrGroupSpec()


class CidrGroup(msgspec.Struct, frozen=True):
    """A CiliumCIDRGroup; `unread` says why its blocks are not known, "" where they are."""

    name: str
    labels: tuple[tuple[str, str], ...]
    blocks: tuple[AddressBlock, ...]
    unread: str = ""

    def holds(self, address: Address) -> bool:
        return any(b.holds(address) for b in self.blocks)


def groups_of(snapshot: ClusterSnapshot) -> dict[str, CidrGroup]:
    return {o.name: _group(o) for o in snapshot.of("CiliumCIDRGroup", "cilium.io")}


def _group(obj: KubeObject) -> CidrGroup:
    """One that its API refuses is one whose blocks are not known."""
    labels = tuple((k, str(v)) for k, v in obj.labels.items() if not k.startswith(_OWNED))
    where = Where(obj, "spec.externalCIDRs")
    try:
        raw = obj.decode(_RawCidrGroup)
        for unknown in unknown_fields(obj.raw.get("spec", {}), _RawCidrGroupSpec, "spec"):
            raise Where(obj, unknown.field).error(unknown.why(obj.kind))
        blocks = tuple(as_spelled(block_of(text, where.item(i))) for i, text in enumerate(raw.spec.external_cidrs))
    except InputError as error:
        return CidrGroup(obj.name, labels, (), f"{obj.ref} can't be read: {error.field}: {error.problem}")
    return CidrGroup(obj.name, labels, blocks)


class GroupsPeer(msgspec.Struct, frozen=True):
    """Addresses outside the cluster by the labels of the groups that hold them, taken together."""

    terms: tuple[LabelTerm, ...]
    groups: tuple[CidrGroup, ...]
    excepts: tuple[AddressBlock, ...]
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        wanted = "an address of a CIDR group with " + (", ".join(map(str, self.terms)) or "any labels")
        if party.kind is not PartyKind.OUTSIDE:
            return no(Term.ADDRESS, wanted, f"{party.text}, a pod or node", self.field)
        if party.address is None:
            return Match(None, why=f"the addresses of {party.text} are not known")
        if not self.groups:
            return Match(None, why="no CiliumCIDRGroup was read")
        address = party.address
        labels = [pair for g in self.groups if g.holds(address) for pair in g.labels]
        excepted = any(e.holds(address) for e in self.excepts)
        unread = next((group.unread for group in self.groups if group.unread), "")
        if unread and not excepted:
            return Match(None, why=unread)
        if excepted or not all(_holds(t, labels) for t in self.terms):
            return no(Term.ADDRESS, wanted, str(address), self.field, 1)
        doubt = next((t.doubt for t in self.terms if t.doubt), "")
        return Match(None, why=doubt) if doubt else YES


def _holds(term: LabelTerm, labels: Sequence[tuple[str, str]]) -> bool:
    """Whether a requirement holds for the labels of several groups: a key may have more than one value."""
    values = {v for k, v in labels if k == term.key}
    match term.operator:
        case Operator.IN:
            return bool(values & set(term.values))
        case Operator.NOT_IN:
            return not values & set(term.values)
        case Operator.EXISTS:
            return bool(values)
        case Operator.DOES_NOT_EXIST:
            return not values


class UnreadBlocksPeer(msgspec.Struct, frozen=True):
    """Blocks that were not read: they select no pod and no node, and perhaps an address outside."""

    what: str
    field: str
    why: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is not PartyKind.OUTSIDE:
            return no(Term.ADDRESS, self.what, f"{party.text}, a pod or node", self.field)
        return Match(None, why=self.why)
