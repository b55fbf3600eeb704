"""A misspelt field is named, with what it should be: also where it makes a required one missing."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.policy.where import nearest
from tests.unit.policy.policy_cluster import Raw, admin, engine, netpol, pod, unevaluated

PODS = (pod("ai/a", "10.0.0.1"),)
DENY = {"action": "Deny", "from": [{"namespaces": {}}]}
SUBJECT: Raw = {"namespaces": {}}


def of(version: str, kind: str, **spec: Any) -> Raw:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "p", "namespace": "ai"}, "spec": spec}


def cilium(**spec: Any) -> Raw:
    return of("cilium.io/v2", "CiliumNetworkPolicy", **spec)


def calico(**spec: Any) -> Raw:
    return of("projectcalico.org/v3", "NetworkPolicy", **spec)


@pytest.mark.parametrize(
    ("policy", "field", "near"),
    [
        (cilium(endpointSelectr={}, ingress=[{}]), "spec.endpointSelectr", "endpointSelector"),
        (cilium(endpoint_selector={}, ingress=[{}]), "spec.endpoint_selector", "endpointSelector"),
        (cilium(endpointSelector={}, ingres=[{}]), "spec.ingres", "ingress"),
        (
            cilium(endpointSelector={}, egress=[{"toFQDNs": [{"matchNam": "a.example"}]}]),
            "spec.egress[0].toFQDNs[0].matchNam",
            "matchName",
        ),
        (admin("AdminNetworkPolicy", "p", subjct=SUBJECT, priority=1, ingress=[DENY]), "spec.subjct", "subject"),
        (admin("AdminNetworkPolicy", "p", subject=SUBJECT, priorty=1, ingress=[DENY]), "spec.priorty", "priority"),
        (
            admin("AdminNetworkPolicy", "p", subject={"namespace": {}}, priority=1, ingress=[DENY]),
            "spec.subject.namespace",
            "namespaces",
        ),
        (
            admin("AdminNetworkPolicy", "p", subject=SUBJECT, priority=1, ingress=[{"action": "Deny", "form": [{}]}]),
            "spec.ingress[0].form",
            "from",
        ),
        (admin("ClusterNetworkPolicy", "p", subject=SUBJECT, priority=1, teir="Admin"), "spec.teir", "tier"),
        (
            netpol("ai/p", ingress=[{"from": [{"ipBlock": {"cird": "10.0.0.0/8"}}]}]),
            "spec.ingress[0].from[0].ipBlock.cird",
            "cidr",
        ),
        (
            netpol("ai/p", ingress=[{"from": [{"podSelectr": {}}]}]),
            "spec.ingress[0].from[0].podSelectr",
            "podSelector",
        ),
        (calico(selector="all()", ingress=[{"acton": "Deny"}]), "spec.ingress[0].acton", "action"),
        ({**netpol("ai/p"), "Spec": {}}, "Spec", "spec"),
    ],
)
def test_a_refused_policy_names_the_misspelt_field_and_what_it_should_be(policy: Raw, field: str, near: str) -> None:
    one = unevaluated(*PODS, policy)
    assert one.field == field
    assert one.reason == f"there is no field {field.rpartition('.')[2]} here: did you mean {near}?"


def test_one_that_is_missing_and_nothing_like_it_is_told_as_missing() -> None:
    one = unevaluated(*PODS, admin("AdminNetworkPolicy", "p", priority=1, egres=[]))
    assert (one.field, one.reason) == ("spec", "Object missing required field `subject`")


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (netpol("ai/p", egres=[]), "no such field in NetworkPolicy v1: did you mean egress?"),
        (netpol("ai/p", tenant="x"), "no such field in NetworkPolicy v1"),
        (calico(selectors="all()"), "no such field in Calico's NetworkPolicy: did you mean selector?"),
        (
            cilium(endpointSelector={}, ingress=[{}], nodeSelectr={}),
            "no such field in CiliumNetworkPolicy: did you mean nodeSelector?",
        ),
    ],
)
def test_a_field_that_is_only_dropped_has_its_right_name_beside_it(policy: Raw, reason: str) -> None:
    notes = [why for compiled in engine(*PODS, policy).policies for _, why in compiled.not_evaluated]
    assert reason in notes


@pytest.mark.parametrize(
    ("name", "near"), [("FROM", "from"), ("frm", "from"), ("too", "to"), ("from", ""), ("annotations", "")]
)
def test_a_name_is_near_another_whatever_its_case(name: str, near: str) -> None:
    assert nearest(name, ("from", "to", "ports")) == near


def test_every_misspelling_of_a_refused_policy_is_named() -> None:
    e = engine(*PODS, of("networking.k8s.io/v1", "NetworkPolicy", podSelectr={}, policyTypes=["Ingres"]))
    (one,) = e.unevaluated
    assert (one.field, one.reason) == (
        "spec.policyTypes[0]",
        "'Ingres' is neither Ingress nor Egress: did you mean Ingress?",
    )
    (compiled,) = e.policies
    assert ("spec.podSelectr", "no such field in NetworkPolicy: did you mean podSelector?") in compiled.not_evaluated
