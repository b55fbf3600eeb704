"""A policy that is not valid is named with file, object and field, as the API server would refuse it."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.policy.left_out.served import RefusedBy
from tests.unit.policy.policy_cluster import admin, netpol, unevaluated


def expression(operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "app", "operator": operator, "values": list(values)}]}


def block(cidr: str, *excepts: str) -> dict[str, Any]:
    return {"ingress": [{"from": [{"ipBlock": {"cidr": cidr, "except": list(excepts)}}]}]}


def ports(**port: Any) -> dict[str, Any]:
    return {"ingress": [{"ports": [port]}]}


BLOCK = "spec.ingress[0].from[0].ipBlock"
PORT = "spec.ingress[0].ports[0]"


@pytest.mark.parametrize(
    ("spec", "field", "problem"),
    [
        (
            {"podSelector": expression("Is", "x")},
            "spec.podSelector.matchExpressions[0].operator",
            "unknown operator 'Is'",
        ),
        (
            {"podSelector": expression("In")},
            "spec.podSelector.matchExpressions[0].values",
            "operator In needs at least one value",
        ),
        (
            {"podSelector": expression("Exists", "x")},
            "spec.podSelector.matchExpressions[0].values",
            "operator Exists takes no values",
        ),
        ({"podSelector": {"matchLabels": {"a b": "x"}}}, "spec.podSelector.matchLabels", "'a b' is not a label key"),
        (
            {"podSelector": {"matchLabels": {"a": "x y"}}},
            "spec.podSelector.matchLabels.a",
            "'x y' is not a label value",
        ),
        ({"podSelector": {"matchLabels": {"a": 1}}}, "spec.podSelector.matchLabels[...]", "Expected `str`, got `int`"),
        (block("10.0.0.0"), f"{BLOCK}.cidr", "'10.0.0.0' is not a CIDR"),
        (block("10.0.0.0/33"), f"{BLOCK}.cidr", "'10.0.0.0/33' is not a CIDR"),
        (block("10.0.0.256/8"), f"{BLOCK}.cidr", "'10.0.0.256/8' is not a CIDR"),
        (block("10.0.0.0/255.0.0.0"), f"{BLOCK}.cidr", "'10.0.0.0/255.0.0.0' is not a CIDR"),
        (
            block("10.0.0.0/8", "11.0.0.0/16"),
            f"{BLOCK}.except[0]",
            "'11.0.0.0/16' is not a strict part of '10.0.0.0/8'",
        ),
        (block("10.0.0.0/8", "10.0.0.0/8"), f"{BLOCK}.except[0]", "'10.0.0.0/8' is not a strict part of '10.0.0.0/8'"),
        (block("10.0.0.0/8", "fd00::/16"), f"{BLOCK}.except[0]", "'fd00::/16' is not a strict part of '10.0.0.0/8'"),
        (ports(port=90, endPort=80), f"{PORT}.endPort", "endPort 80 is below port 90"),
        (ports(port="http", endPort=80), f"{PORT}.endPort", "endPort needs a numeric port"),
        (ports(endPort=80), f"{PORT}.endPort", "endPort needs a numeric port"),
        (ports(port=70000), f"{PORT}.port", "port 70000 is not between 1 and 65535"),
        (ports(port="80"), f"{PORT}.port", "the port number '80' is quoted, which makes it a name"),
        (ports(port="Not_A_Name"), f"{PORT}.port", "'Not_A_Name' is not a port name"),
        (ports(port=80, protocol="tcp"), f"{PORT}.protocol", "'tcp' is none of TCP, UDP, SCTP"),
        ({"policyTypes": ["ingress"]}, "spec.policyTypes[0]", "'ingress' is neither Ingress nor Egress"),
        (
            {"ingress": [{"from": [{}]}]},
            "spec.ingress[0].from[0]",
            "a peer needs podSelector, namespaceSelector or ipBlock",
        ),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]},
            "spec.ingress[0].from[0]",
            "ipBlock can't be combined with podSelector or namespaceSelector",
        ),
        ({"ingress": {}}, "spec.ingress", "Expected `array`, got `object`"),
    ],
)
def test_network_policies(spec: dict[str, Any], field: str, problem: str) -> None:
    error = unevaluated(netpol("ai/p", **spec))
    assert (error.source, str(error.ref), error.field) == ("test.yaml", "NetworkPolicy ai/p", field)
    assert error.refused_by is RefusedBy.API
    assert error.reason.startswith(problem)


SUBJECT: dict[str, Any] = {"subject": {"namespaces": {}}}
PEER: list[dict[str, Any]] = [{"namespaces": {}}]


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("AdminNetworkPolicy", {**SUBJECT}, "spec.priority"),
        ("AdminNetworkPolicy", {**SUBJECT, "priority": 1001}, "spec.priority"),
        ("AdminNetworkPolicy", {"priority": 1, "subject": {}}, "spec.subject"),
        (
            "AdminNetworkPolicy",
            {**SUBJECT, "priority": 1, "ingress": [{"action": "Drop", "from": PEER}]},
            "spec.ingress[0].action",
        ),
        ("AdminNetworkPolicy", {**SUBJECT, "priority": 1, "ingress": [{"action": "Deny"}]}, "spec.ingress[0].from"),
        (
            "AdminNetworkPolicy",
            {**SUBJECT, "priority": 1, "egress": [{"action": "Deny", "to": [{}]}]},
            "spec.egress[0].to[0]",
        ),
        (
            "BaselineAdminNetworkPolicy",
            {**SUBJECT, "ingress": [{"action": "Pass", "from": PEER}]},
            "spec.ingress[0].action",
        ),
        ("ClusterNetworkPolicy", {**SUBJECT, "priority": 1, "tier": "Top"}, "spec.tier"),
        (
            "AdminNetworkPolicy",
            {
                **SUBJECT,
                "priority": 1,
                "ingress": [
                    {
                        "action": "Deny",
                        "from": PEER,
                        "ports": [{"portRange": {"protocol": "TCP", "start": 9, "end": 8}}],
                    }
                ],
            },
            "spec.ingress[0].ports[0].portRange.end",
        ),
        (
            "AdminNetworkPolicy",
            {**SUBJECT, "priority": 1, "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.1"]}]}]},
            "spec.egress[0].to[0].networks[0]",
        ),
    ],
)
def test_policies_of_administrators(kind: str, spec: dict[str, Any], field: str) -> None:
    error = unevaluated(admin(kind, "default", **spec))
    assert (error.source, str(error.ref), error.field) == ("test.yaml", f"{kind} default", field)
