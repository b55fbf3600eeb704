"""What the documentation of enforcers, of their own policy kinds and of meshes, and reports, say becomes of a flow."""

from __future__ import annotations

import pytest

from kubectl_genainet.policy import PolicyEngine, PolicyFlow
from kubectl_genainet.policy.enforcers import named_enforcer
from kubectl_genainet.policy.flows.arrival import explain_arriving
from tests.unit.policy.documented.admin_kinds import ANTREA_CASES, OVN_CASES
from tests.unit.policy.documented.base import (
    CHAT,
    CLOSED_IN,
    CLOSED_OUT,
    CLUSTER,
    DB,
    NAME,
    NODE1,
    NODE2,
    WEB,
    Documented,
    kind,
)
from tests.unit.policy.documented.calico import CALICO_CASES
from tests.unit.policy.documented.cilium import CILIUM_CASES
from tests.unit.policy.documented.clouds import GKE_CASES, VPC_CASES
from tests.unit.policy.documented.reports import REPORTS
from tests.unit.policy.policy_cluster import (
    end,
    namespace,
    netpol,
    snapshot,
)

AUTHORIZED = kind("security.istio.io/v1", "AuthorizationPolicy", where="a", action="DENY", rules=[{}])
AMBIENT = (
    namespace("a", **{NAME: "a", "istio.io/dataplane-mode": "ambient"}),
    namespace("b", **{NAME: "b", "istio.io/dataplane-mode": "ambient"}),
    *CLUSTER[2:],
)
# Istio: AuthorizationPolicy reference; ambient mesh and Kubernetes NetworkPolicy. kube-router and Flannel: their documentation.
OTHER_CASES = [
    Documented("an AuthorizationPolicy may deny", "unknown", (AUTHORIZED,), CHAT, WEB, "unknown"),
    Documented("calls of its own workloads", "unknown", (AUTHORIZED,), CHAT, DB, "unknown"),
    Documented("not of others", "unknown", (AUTHORIZED,), WEB, CHAT, "allow"),
    Documented("a NetworkPolicy denies beside it", "unknown", (AUTHORIZED, CLOSED_IN), CHAT, WEB, "deny"),
    Documented(
        "ambient: the port of the application admits nothing",
        "unknown",
        (*AMBIENT, netpol("a/p", ingress=[{"ports": [{"port": 80}]}])),
        CHAT,
        WEB,
        "deny",
    ),
    Documented(
        "ambient: HBONE's does",
        "unknown",
        (*AMBIENT, netpol("a/p", ingress=[{"ports": [{"port": 15008}]}])),
        CHAT,
        WEB,
        "allow",
    ),
    Documented("Flannel enforces nothing", "none", (CLOSED_IN, CLOSED_OUT), CHAT, WEB, "allow"),
    Documented("kube-router enforces NetworkPolicies", "kube-router", (CLOSED_IN,), CHAT, WEB, "deny"),
    Documented("the own node passes", "kube-router", (CLOSED_IN,), NODE1, WEB, "allow"),
    Documented("another does not", "kube-router", (CLOSED_IN,), NODE2, WEB, "deny"),
]

CASES = [*OVN_CASES, *ANTREA_CASES, *VPC_CASES, *GKE_CASES, *CALICO_CASES, *CILIUM_CASES, *OTHER_CASES, *REPORTS]


@pytest.mark.parametrize("one", CASES, ids=lambda one: f"{one.enforcer}: {one.says}")
def test_what_is_documented_becomes_of_the_flow(one: Documented) -> None:
    own = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in one.objects}
    around = [o for o in CLUSTER if (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) not in own]
    judge = PolicyEngine(snapshot(*around, *one.objects), named_enforcer(one.enforcer))
    flow = PolicyFlow(end(one.source), end(one.target), "TCP", one.port)
    assert explain_arriving(judge, flow, "").verdict.value == one.verdict
