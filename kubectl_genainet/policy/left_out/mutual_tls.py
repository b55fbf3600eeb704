"""Istio's PeerAuthentications with mode STRICT, each as policies that may refuse clients without a proxy of the mesh.

The packets of such a client arrive, and the workload's proxy ends its connection. Whether a client speaks the mesh's mutual TLS
by itself no object shows, so what hangs on it is UNKNOWN. The narrowest PeerAuthentication decides: the workload's own, then
the namespace's, then the mesh's; portLevelMtls goes before it. Source: Istio, "PeerAuthentication".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.policy.left_out.scopes import MESH_ROOT
from kubectl_genainet.policy.left_out.unevaluated import StandIn, Unevaluated
from kubectl_genainet.policy.matching.mesh import MeshLevel
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import YES, AllOfPeer, Match, no
from kubectl_genainet.policy.model import PolicyFamily, RuleAction, Term
from kubectl_genainet.policy.rules import NotPorts, NumberedPorts, Policy, PolicyRule, Ports

_FIELD = "spec.mtls.mode"
_WHY = (
    "mutual TLS is STRICT: the proxy of the workload refuses a client that does not speak it, and the client's objects show "
    "no proxy of the mesh"
)


class _Authentication(msgspec.Struct, frozen=True):
    """One PeerAuthentication. `labels` is its selector, empty for a whole namespace or the mesh; modes may be empty (UNSET)."""

    ref: ObjectRef
    labels: dict[str, str]
    mode: str
    ports: dict[int, str]
    source: str

    def rank(self, party: PolicyParty) -> int:
        """How narrowly it selects a pod; 0: not at all."""
        if self.ref.namespace == party.namespace:
            if self.labels:
                return 3 if self.labels.items() <= party.labels.items() else 0
            return 2
        return 1 if self.ref.namespace == MESH_ROOT and not self.labels else 0

    def mode_at(self, port: int) -> str:
        """Its mode at a port; port 0 stands for those that it names none for."""
        mode = self.ports.get(port, self.mode) if self.labels else self.mode
        return "" if mode == "UNSET" else mode


class _DecidedStrict(msgspec.Struct, frozen=True):
    """Pods for which one of the PeerAuthentications decides at a port."""

    all: tuple[_Authentication, ...]
    decides: ObjectRef
    port: int

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is PartyKind.POD:
            ranked = [
                (authentication.rank(party), authentication)
                for authentication in self.all
                if authentication.mode_at(self.port)
            ]
            chosen = [authentication for rank, authentication in ranked if rank and rank == max(r for r, _ in ranked)]
            if any(
                authentication.ref == self.decides and authentication.mode_at(self.port) == "STRICT"
                for authentication in chosen
            ):
                return YES
        return no(Term.POD_LABELS, "a pod with STRICT mutual TLS", party.text, _FIELD)


class _MeshPeer(msgspec.Struct, frozen=True):
    """Parties whose part in the mesh is as sure as `lowest` to `highest`."""

    lowest: MeshLevel
    highest: MeshLevel

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if self.lowest <= party.mesh <= self.highest:
            return YES
        return no(Term.POD, "a client without a proxy of the mesh", party.text, _FIELD)


def strict_mutual_tls(snapshot: ClusterSnapshot) -> Iterator[StandIn]:
    """Policies in place of the PeerAuthentications that are STRICT somewhere."""
    authentications = tuple(_authentications(snapshot))
    named = tuple(sorted({port for authentication in authentications for port in authentication.ports}))
    for authentication in authentications:
        strict = [port for port in (0, *named) if authentication.mode_at(port) == "STRICT"]
        for port in strict:
            for level in (MeshLevel.TO_BE_INJECTED, MeshLevel.MESHED):
                what = Unevaluated(authentication.ref, _WHY, _FIELD, authentication.source)
                yield StandIn(_policy(authentications, authentication, port, named, level), what)


def _policy(
    authentications: tuple[_Authentication, ...],
    authentication: _Authentication,
    port: int,
    named: tuple[int, ...],
    level: MeshLevel,
) -> Policy:
    numbers = tuple(NumberedPorts("TCP", number, number, _FIELD) for number in ((port,) if port else named))
    ports: tuple[tuple[Ports, ...], ...] = ((NumberedPorts("TCP", 0, 65535, _FIELD),),)
    if numbers:
        ports = (*ports, numbers if port else (NotPorts(numbers, _FIELD),))
    outside = _MeshPeer(MeshLevel.OUTSIDE, MeshLevel(level - 1))
    rule = PolicyRule(1, RuleAction.DENY, _FIELD, peers=(outside,), ports=ports, not_evaluated=((_FIELD, _WHY),))
    return Policy(
        ref=authentication.ref,
        family=PolicyFamily.OTHER,
        tier="other",
        subject=AllOfPeer((_MeshPeer(level, level), _DecidedStrict(authentications, authentication.ref, port))),
        order=(-1, authentication.ref.name),
        ingress=(rule,),
    )


def _authentications(snapshot: ClusterSnapshot) -> Iterator[_Authentication]:
    for obj in snapshot.of("PeerAuthentication", "security.istio.io"):
        spec = _mapping(obj.raw.get("spec"))
        labels = {str(k): str(v) for k, v in _mapping(_mapping(spec.get("selector")).get("matchLabels")).items()}
        ports = {
            port: str(_mapping(mtls).get("mode") or "")
            for text, mtls in _mapping(spec.get("portLevelMtls")).items()
            if (port := whole_number(str(text))) is not None
        }
        yield _Authentication(obj.ref, labels, str(_mapping(spec.get("mtls")).get("mode") or ""), ports, obj.source)


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
