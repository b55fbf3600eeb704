"""NetworkPolicy (networking.k8s.io/v1): validated as the API server does, then compiled.

Source: API reference, NetworkPolicySpec; pkg/apis/networking/validation.
"""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.matching.cidr import block_of, excepts_of
from kubectl_genainet.policy.matching.peers import BlockPeer, Peer, PodsPeer
from kubectl_genainet.policy.matching.ports import check_port, check_port_name, check_protocol
from kubectl_genainet.policy.matching.selectors import EVERYTHING, RawSelector, selector_of
from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction
from kubectl_genainet.policy.rules import (
    DEFAULT_TIER,
    NETWORK_POLICY_ORDER,
    NamedPortTerm,
    NumberedPorts,
    Policy,
    PolicyRule,
    Ports,
)
from kubectl_genainet.policy.where import Where, did_you_mean, unknown_fields


class RawNetworkPolicyPort(msgspec.Struct, frozen=True, rename="camel"):
    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class RawBlock(msgspec.Struct, frozen=True):
    cidr: str
    except_: tuple[str, ...] = msgspec.field(default=(), name="except")


class RawNetworkPolicyPeer(msgspec.Struct, frozen=True, rename="camel"):
    pod_selector: RawSelector | None = None
    namespace_selector: RawSelector | None = None
    ip_block: RawBlock | None = None


class RawIngress(msgspec.Struct, frozen=True):
    ports: tuple[RawNetworkPolicyPort, ...] = ()
    from_: tuple[RawNetworkPolicyPeer, ...] = msgspec.field(default=(), name="from")


class RawEgress(msgspec.Struct, frozen=True):
    ports: tuple[RawNetworkPolicyPort, ...] = ()
    to: tuple[RawNetworkPolicyPeer, ...] = ()


class RawNetworkPolicySpec(msgspec.Struct, frozen=True, rename="camel"):
    pod_selector: RawSelector = RawSelector()
    policy_types: tuple[str, ...] = ()
    ingress: tuple[RawIngress, ...] = ()
    egress: tuple[RawEgress, ...] = ()


class RawNetworkPolicy(msgspec.Struct, frozen=True):
    spec: RawNetworkPolicySpec = RawNetworkPolicySpec()


def compile_network_policy(obj: KubeObject, *, every_rule: bool = False) -> Policy:
    """Raises InputError with file, object and field for what the API server would refuse.

    `every_rule` keeps the rules of a direction that policyTypes leaves out; by the API they have no effect.
    """
    spec = obj.decode(RawNetworkPolicy).spec
    where = Where(obj).at("spec")
    types = _types(spec, where)
    selector = selector_of(spec.pod_selector, where.at("podSelector"))
    unknown = unknown_fields(obj.raw.get("spec", {}), RawNetworkPolicySpec, "spec")
    misspelt = any(one.field.count(".") == 1 and "[" not in one.field for one in unknown)  # perhaps a whole direction
    isolates_egress, isolates_ingress = misspelt or Direction.EGRESS in types, misspelt or Direction.INGRESS in types
    rules_field = where.at("ingress")
    ingress = tuple(_rule(i, r.from_, r.ports, rules_field.item(i), "from") for i, r in enumerate(spec.ingress))
    rules_field = where.at("egress")
    egress = tuple(_rule(i, r.to, r.ports, rules_field.item(i), "to") for i, r in enumerate(spec.egress))
    return Policy(
        ref=obj.ref,
        family=PolicyFamily.NETWORK_POLICY,
        tier=DEFAULT_TIER.name,
        subject=PodsPeer(selector, namespace=obj.namespace, pods_field="spec.podSelector"),
        order=(1, NETWORK_POLICY_ORDER, f"knp.default.{obj.name}", obj.namespace),
        egress=egress if isolates_egress or every_rule else (),
        ingress=ingress if isolates_ingress or every_rule else (),
        isolates_egress=isolates_egress,
        isolates_ingress=isolates_ingress,
        not_evaluated=tuple((one.field, one.why("NetworkPolicy v1")) for one in unknown),
    )


def _types(spec: RawNetworkPolicySpec, where: Where) -> set[Direction]:
    """policyTypes, with the API's default: Ingress, and Egress too if there is any egress rule."""
    if not spec.policy_types:
        return {Direction.INGRESS, Direction.EGRESS} if spec.egress else {Direction.INGRESS}
    for i, name in enumerate(spec.policy_types):
        if name not in ("Ingress", "Egress"):
            meant = did_you_mean(name, ("Ingress", "Egress"))
            raise where.at("policyTypes").item(i).error(f"{name!r} is neither Ingress nor Egress{meant}")
    return {Direction(name.lower()) for name in spec.policy_types}


def _rule(
    index: int,
    peers: tuple[RawNetworkPolicyPeer, ...],
    ports: tuple[RawNetworkPolicyPort, ...],
    where: Where,
    side: str,
) -> PolicyRule:
    return PolicyRule(
        number=index + 1,
        action=RuleAction.ALLOW,
        field=where.field,
        peers=tuple(_peer(p, where.at(side).item(i)) for i, p in enumerate(peers)) or None,
        ports=(tuple(_port(p, where.at("ports").item(i)) for i, p in enumerate(ports)),) if ports else (),
    )


def _peer(raw: RawNetworkPolicyPeer, where: Where) -> Peer:
    if raw.ip_block is not None:
        if raw.pod_selector is not None or raw.namespace_selector is not None:
            raise where.error("ipBlock can't be combined with podSelector or namespaceSelector")
        block_field = where.at("ipBlock")
        block = block_of(raw.ip_block.cidr, block_field.at("cidr"))
        return BlockPeer(block, excepts_of(block, raw.ip_block.except_, block_field.at("except")), block_field.field)
    if raw.pod_selector is None and raw.namespace_selector is None:
        raise where.error("a peer needs podSelector, namespaceSelector or ipBlock")
    pods = where.at("podSelector")
    selector = EVERYTHING if raw.pod_selector is None else selector_of(raw.pod_selector, pods)
    if raw.namespace_selector is None:
        return PodsPeer(selector, namespace=where.obj.namespace, pods_field=pods.field)
    namespaces = where.at("namespaceSelector")
    return PodsPeer(
        selector,
        selector_of(raw.namespace_selector, namespaces),
        pods_field=pods.field if raw.pod_selector is not None else namespaces.field,
        namespaces_field=namespaces.field,
    )


def _port(raw: RawNetworkPolicyPort, where: Where) -> Ports:
    check_protocol(raw.protocol, where.at("protocol"))
    if raw.end_port is not None:
        if not isinstance(raw.port, int):
            raise where.at("endPort").error("endPort needs a numeric port")
        if raw.end_port < raw.port:
            raise where.at("endPort").error(f"endPort {raw.end_port} is below port {raw.port}")
        check_port(raw.end_port, where.at("endPort"))
    if raw.port is None:
        return NumberedPorts(raw.protocol, 0, 65535, where.field)
    if isinstance(raw.port, str):
        check_port_name(raw.port, where.at("port"))
        return NamedPortTerm(raw.protocol, raw.port, where.at("port").field)
    check_port(raw.port, where.at("port"))
    return NumberedPorts(raw.protocol, raw.port, raw.end_port or raw.port, where.at("port").field)
