"""Calico's NetworkPolicy and GlobalNetworkPolicy (projectcalico.org/v3, also as stored: crd.projectcalico.org/v1).

Source: Calico documentation, "Network policy", "Global network policy", "Tier", "Network set". Policies of a tier are
consulted by order and name; the first rule that matches decides: Allow, Deny or Pass (on to the next tier).
Where a tier's policies select a pod and none decides, the tier ends in its default action. A NetworkPolicy of
Kubernetes counts as one of the default tier with order 1000. Rules for host endpoints are not evaluated.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.policy.dialects.calico.accounts import AccountLabelsPeer, accounts_of, endpoints_of
from kubectl_genainet.policy.dialects.calico.checks import ACTIONS, check_policy, protocol_of
from kubectl_genainet.policy.dialects.calico.shapes import (
    RawAccounts,
    RawCalicoPolicy,
    RawCalicoRule,
    RawCalicoSpec,
    RawEntity,
    RawTier,
)
from kubectl_genainet.policy.matching.cidr import block_of
from kubectl_genainet.policy.matching.expressions import (
    EVERY_LABEL,
    NAMESPACE_NAME,
    And,
    Not,
    expression_of,
    in_namespaces,
    parse_selector,
)
from kubectl_genainet.policy.matching.peers import (
    AllOfPeer,
    AnyOfPeer,
    AnyPeer,
    BlockPeer,
    ExpressionPeer,
    NetworkSet,
    NotPeer,
    Peer,
    PodsPeer,
    ServiceAccountPeer,
    UnknownPeer,
)
from kubectl_genainet.policy.matching.selectors import Operator, Requirement, Selector
from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction, Term
from kubectl_genainet.policy.rules import (
    DEFAULT_TIER,
    NamedPortTerm,
    NotPorts,
    NotProtocol,
    NumberedPorts,
    Policy,
    PolicyRule,
    Ports,
    Tier,
)
from kubectl_genainet.policy.where import Where, nearest, unknown_fields

GROUPS = ("projectcalico.org", "crd.projectcalico.org")
_SETS = ("NetworkSet", "GlobalNetworkSet")
_LAST = float("inf")  # a policy without order comes last


class CalicoCompiler:
    """Compiles Calico's policies of one snapshot; `tiers` are its own tiers, less the default one."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot
        self.tiers: dict[str, Tier] = {}
        for obj in (o for group in GROUPS for o in snapshot.of("Tier", group)):
            try:
                spec = obj.decode(RawTier).spec
            except InputError:
                continue  # its policies are not evaluated, with the tier as the reason
            ends = RuleAction.PASS if spec.default_action == "Pass" else RuleAction.DENY
            if obj.name != DEFAULT_TIER.name:
                order = _LAST if spec.order is None else spec.order
                self.tiers[obj.name] = Tier(f"Calico {obj.name}", order, ends)
        self._network_sets = _network_sets(snapshot)
        self._accounts = accounts_of(snapshot)

    def policies(self) -> list[KubeObject]:
        """Calico's policies, each once: one may be read through both API groups, the stored name with its tier first.

        A NetworkPolicy of Kubernetes that Calico shows among its own (knp.default.NAME) is left to that kind.
        """
        policies: list[KubeObject] = []
        read: set[tuple[str, str, str, str]] = set()
        for group in GROUPS:
            listed = [
                obj for kind in ("NetworkPolicy", "GlobalNetworkPolicy") for obj in self._snapshot.of(kind, group)
            ]
            policies += [o for o in listed if not o.name.startswith("knp.default.") and _stored(o) not in read]
            read.update(map(_stored, listed))
        return policies

    def compile(self, obj: KubeObject) -> Policy | None:
        """None for a policy of host endpoints only (doNotTrack, preDNAT)."""
        spec = obj.decode(RawCalicoPolicy).spec
        where = Where(obj).at("spec")
        if spec.do_not_track or spec.pre_dnat:
            return None
        check_policy(spec, where)
        types = _types(spec)
        tier, unknown = self._tier(spec)
        unknown += tuple(
            (unknown_field.field, unknown_field.why(f"Calico's {obj.kind}"))
            for unknown_field in unknown_fields(obj.raw.get("spec", {}), RawCalicoSpec, "spec")
        )
        order = _LAST if spec.order is None else spec.order
        return Policy(
            ref=obj.ref,
            family=PolicyFamily.CALICO,
            tier=tier,
            subject=self._subject(obj, spec, where),
            order=(
                1,
                order,
                obj.name if obj.name.startswith(f"{spec.tier}.") else f"{spec.tier}.{obj.name}",
                obj.namespace,
            ),
            egress=self._rules(spec.egress, where.at("egress"), Direction.EGRESS) if "Egress" in types else (),
            ingress=self._rules(spec.ingress, where.at("ingress"), Direction.INGRESS) if "Ingress" in types else (),
            isolates_egress="Egress" in types,
            isolates_ingress="Ingress" in types,
            not_evaluated=unknown,
        )

    def as_enforced(self, policy: Policy) -> Policy:
        """An administrator's policy as Calico takes it: network sets are part of the namespaces that a rule selects.

        Source: Calico 3.34 (in development), lib/backend/k8s/conversion/clusternetworkpolicy.go.
        """
        if not self._network_sets:
            return policy

        def with_sets(rule: PolicyRule) -> PolicyRule:
            peers = tuple(self._with_sets(p) if _is_of_namespaces(p) else p for p in rule.peers or ())
            return msgspec.structs.replace(rule, peers=peers)

        egress, ingress = (tuple(map(with_sets, rules)) for rules in (policy.egress, policy.ingress))
        return msgspec.structs.replace(policy, egress=egress, ingress=ingress)

    def _with_sets(self, peer: Peer) -> Peer:
        assert isinstance(peer, PodsPeer)
        return ExpressionPeer(
            selector=EVERY_LABEL,
            namespaces=in_namespaces(expression_of(peer.namespaces)),
            text=f"namespace {peer.namespaces}",
            namespace="",
            all_namespaces=False,
            only_global=False,
            sets=self._network_sets,
            field=peer.namespaces_field,
        )

    def _tier(self, spec: RawCalicoSpec) -> tuple[str, tuple[tuple[str, str], ...]]:
        if spec.tier == DEFAULT_TIER.name:
            return DEFAULT_TIER.name, ()
        tier = self.tiers.get(spec.tier)
        if tier is None:
            why = f"Tier {spec.tier} is not among the objects, so its place is not known"
            return DEFAULT_TIER.name, (("spec.tier", why),)
        return tier.name, ()

    def _subject(self, obj: KubeObject, spec: RawCalicoSpec, where: Where) -> Peer:
        parts: list[Peer] = [self._expression(spec.selector, spec.namespace_selector, obj.namespace, where, nets=False)]
        if spec.service_account_selector:
            parts.append(self._by_account(spec.service_account_selector, where.at("serviceAccountSelector")))
        return parts[0] if len(parts) == 1 else AllOfPeer(tuple(parts))

    def _by_account(self, selector: str, where: Where) -> Peer:
        """Pods by the labels of their service account; without a labels' selector every account is one."""
        return AccountLabelsPeer(parse_selector(selector, where), self._accounts, selector, where.field)

    def _expression(
        self, selector: str, namespaces: str, namespace: str, where: Where, *, nets: bool = True
    ) -> ExpressionPeer:
        """Endpoints by a selector: of the policy's namespace, or of those that a namespaceSelector selects."""
        only_global = namespaces.strip() == "global()"
        return ExpressionPeer(
            selector=parse_selector(selector, where.at("selector")),
            namespaces=in_namespaces(parse_selector("" if only_global else namespaces, where.at("namespaceSelector"))),
            text=" and ".join(
                filter(None, (selector, f"namespace {namespaces or namespace}" if namespaces or namespace else ""))
            )
            or "all()",
            namespace="" if namespaces else namespace,
            all_namespaces=not namespaces,
            only_global=only_global,
            sets=self._network_sets if nets else (),
            field=where.at("selector").field if selector else where.at("namespaceSelector").field,
        )

    def _rules(self, raw: tuple[RawCalicoRule, ...], where: Where, direction: Direction) -> tuple[PolicyRule, ...]:
        return tuple(self._rule(i, r, where.item(i), direction) for i, r in enumerate(raw))

    def _rule(self, index: int, raw: RawCalicoRule, where: Where, direction: Direction) -> PolicyRule:
        peer_side, own_side = ("source", "destination") if direction is Direction.INGRESS else ("destination", "source")
        peers = self._entity(getattr(raw, peer_side), where.at(peer_side), raw.ip_version)
        own = self._entity(getattr(raw, own_side), where.at(own_side), None)
        unsure = []
        if raw.source.ports or raw.source.not_ports:
            unsure.append((where.at("source").at("ports").field, "source ports are not evaluated"))
        if raw.http:
            unsure.append((where.at("http").field, "layer 7 rules (http) are not evaluated"))
        ports = _ports(raw, where)
        if raw.destination.services and direction is Direction.EGRESS:
            endpoints = self._endpoints(raw.destination.services, where.obj.namespace, where.at("destination"))
            ports = (*ports, endpoints[1]) if endpoints else ports
        return PolicyRule(
            number=index + 1,
            action=ACTIONS[raw.action],
            field=where.field,
            peers=(peers,) if peers is not None else None,
            ports=ports,
            own=own,
            not_evaluated=tuple(unsure),
        )

    def _entity(self, raw: RawEntity, where: Where, version: int | None) -> Peer | None:
        """The terms of an entity rule, all of which must hold; None where there is none."""
        parts: list[Peer] = []
        own = where.obj.namespace
        # What selects endpoints limits a namespaced policy's rule to its namespace, notSelector and serviceAccounts too.
        accounts = raw.service_accounts is not None
        if raw.selector or raw.namespace_selector or accounts or (own and raw.not_selector):
            # One set of addresses: what an overlapping network set says of an address does not count against it.
            peer = self._expression(raw.selector, raw.namespace_selector, own, where, nets=not accounts)
            if raw.not_selector:
                excepted = Not(parse_selector(raw.not_selector, where.at("notSelector")))
                text = f"{peer.text} and not {raw.not_selector}"
                peer = msgspec.structs.replace(peer, selector=And((peer.selector, excepted)), text=text)
            parts.append(peer)
        elif raw.not_selector:
            field = where.at("notSelector")
            inner = self._expression(raw.not_selector, "", "", where)
            parts.append(NotPeer(inner, Term.POD_LABELS, f"not {raw.not_selector}", field.field))
        if raw.nets:
            parts.append(_any_of(raw.nets, where.at("nets")))
        if raw.not_nets:
            field = where.at("notNets")
            parts.append(
                NotPeer(_any_of(raw.not_nets, field), Term.ADDRESS, f"not in {', '.join(raw.not_nets)}", field.field)
            )
        if version is not None:
            every = "0.0.0.0/0" if version == 4 else "::/0"
            parts.append(_any_of((every,), where))
        if raw.service_accounts is not None:
            parts += self._named_accounts(raw.service_accounts, where.at("serviceAccounts"))
        if raw.services:
            behind = self._endpoints(raw.services, own, where)
            why = "the Service is not among the objects"
            parts.append(behind[0] if behind else UnknownPeer(where.at("services").field, why))
        if raw.domains:
            parts.append(UnknownPeer(where.at("domains").field, "domains of an entity rule is not evaluated"))
        return AllOfPeer(tuple(parts)) if parts else None

    def _endpoints(self, raw: dict[str, Any], own: str, where: Where) -> tuple[Peer, tuple[NumberedPorts, ...]] | None:
        namespace, name = str(raw.get("namespace") or own), str(raw.get("name", ""))
        return endpoints_of(self._snapshot, namespace, name, where.at("services").field)

    def _named_accounts(self, raw: RawAccounts, where: Where) -> list[Peer]:
        parts: list[Peer] = []
        if raw.names:
            names = Selector((Requirement("serviceaccount", Operator.IN, raw.names),))
            parts.append(ServiceAccountPeer(names, where.at("names").field))
        if raw.selector:
            parts.append(self._by_account(raw.selector, where.at("selector")))
        return parts


def _is_of_namespaces(peer: Peer) -> bool:
    """Whether a peer of an administrator's policy selects whole namespaces, rather than pods in them."""
    return isinstance(peer, PodsPeer) and peer.pods_field == peer.namespaces_field


def _any_of(nets: tuple[str, ...], where: Where) -> Peer:
    blocks = []
    for i, net in enumerate(nets):
        text = net if "/" in net else f"{net}/{128 if ':' in net else 32}"  # a network set may have addresses
        blocks.append(BlockPeer(block_of(text, where.item(i)), (), where.item(i).field))
    return AnyOfPeer(tuple(blocks))


def _types(spec: RawCalicoSpec) -> set[str]:
    """types, with Calico's default: what there are rules for, Ingress where there are none."""
    if spec.types:
        return set(spec.types)
    directions = {name for name, rules in (("Ingress", spec.ingress), ("Egress", spec.egress)) if rules}
    return directions or {"Ingress"}


def _ports(raw: RawCalicoRule, where: Where) -> tuple[tuple[Ports, ...], ...]:
    protocol = protocol_of(raw.protocol)
    alternatives: list[tuple[Ports, ...]] = []
    field = where.at("destination")
    if raw.destination.ports:
        alternatives.append(_port_terms(raw.destination.ports, protocol, field.at("ports")))
    elif protocol:
        alternatives.append((NumberedPorts(protocol, 0, 65535, where.at("protocol").field),))
    if raw.destination.not_ports:
        terms = _port_terms(raw.destination.not_ports, protocol, field.at("notPorts"))
        excluded = tuple(t for t in terms if isinstance(t, NumberedPorts | NamedPortTerm))
        alternatives.append((NotPorts(excluded, field.at("notPorts").field),))
    if raw.not_protocol is not None:
        alternatives.append((NotProtocol(protocol_of(raw.not_protocol), where.at("notProtocol").field),))
    return tuple(alternatives)


def _port_terms(ports: tuple[int | str, ...], protocol: str, where: Where) -> tuple[Ports, ...]:
    terms: list[Ports] = []
    for i, port in enumerate(ports):
        first, colon, last = str(port).partition(":")
        low = whole_number(first)
        high = whole_number(last) if colon else low
        if low is not None and high is not None:
            if not 0 <= low <= high <= 65535:
                raise where.item(i).error(f"{port!r} is not a port or a range of ports")
            terms.append(NumberedPorts(protocol, low, high, where.item(i).field))
        else:
            terms.append(NamedPortTerm(protocol, str(port), where.item(i).field))
    return tuple(terms)


def _network_sets(snapshot: ClusterSnapshot) -> tuple[NetworkSet, ...]:
    """Labelled sets of addresses that selectors select too."""
    sets = []
    for left_out in snapshot.left_out:
        if left_out.kind in _SETS:
            blocks = UnknownPeer("", f"{left_out.kind} objects could not be read: {left_out.reason}")
            sets.append(NetworkSet("", {}, {}, True, blocks, unread=True))
    for group in GROUPS:
        for kind in _SETS:
            for obj in snapshot.of(kind, group):
                namespace = obj.namespace if kind == "NetworkSet" else ""
                labels = dict(obj.labels)
                if namespace:
                    labels["projectcalico.org/namespace"] = namespace
                known = {**snapshot.namespace_labels(namespace), NAMESPACE_NAME: namespace} if namespace else {}
                sets.append(NetworkSet(namespace, labels, known, namespace in snapshot.namespaces, _blocks_of(obj)))
    return tuple(sets)


def _blocks_of(obj: KubeObject) -> Peer:
    """The addresses of a network set; where they can't be read, it is not known which."""
    spec = obj.raw.get("spec")
    nets = spec.get("nets", []) if isinstance(spec, dict) else []
    misspelt = [key for key in spec if nearest(str(key), ("nets",))] if isinstance(spec, dict) else []
    if misspelt:
        return UnknownPeer(f"spec.{misspelt[0]}", f"{obj.ref} has no field {misspelt[0]}: did you mean nets?")
    try:
        blocks = _any_of(tuple(map(str, nets)), Where(obj).at("spec").at("nets"))
    except (InputError, TypeError) as error:
        return UnknownPeer("spec.nets", f"{obj.ref} can't be read: {error}")
    return blocks if nets else NotPeer(AnyPeer(), Term.ADDRESS, "", "")


def _stored(obj: KubeObject) -> tuple[str, str, str, str]:
    """What a policy is in both API groups: kind, namespace, tier, and its name without the tier."""
    spec = obj.raw.get("spec")
    tier = str(spec.get("tier") or "default") if isinstance(spec, dict) else ""
    return obj.kind, obj.namespace, tier, obj.name.removeprefix(f"{tier}.")
