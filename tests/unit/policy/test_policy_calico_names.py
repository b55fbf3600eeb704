"""Calico's rules that name service accounts by labels and Services, and patches among its tiers."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy import PolicyFlow, patch
from tests.unit.policy.policy_cluster import Raw, end, engine, namespace, netpol, pod, verdict

V3 = "projectcalico.org/v3"
PODS = (
    namespace("gw"),
    namespace("db"),
    pod("gw/edge", "10.3.0.2", service_account="front"),
    pod("db/pg-0", "10.3.0.3", labels={"app": "pg"}, ports=(("sql", "TCP", 5432),), service_account="store"),
    pod("db/backup", "10.3.0.4"),
)


def calico(kind: str, name: str, **spec: Any) -> Raw:
    where, _, short = name.rpartition("/")
    metadata = {"name": short, **({"namespace": where} if where else {})}
    return {"apiVersion": V3, "kind": kind, "metadata": metadata, "spec": spec}


def account(name: str, **labels: str) -> Raw:
    where, _, short = name.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": short, "namespace": where, "labels": labels},
    }


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [((account("gw/front", role="gate"),), "allow"), ((account("gw/front", role="x"),), "deny"), ((), "unknown")],
)
def test_a_service_account_is_selected_by_its_labels(accounts: tuple[Raw, ...], expected: str) -> None:
    source = {"serviceAccounts": {"selector": "role == 'gate'"}}
    rule = {"action": "Allow", "source": source}
    policy = calico("GlobalNetworkPolicy", "p", selector="app == 'pg'", types=["Ingress"], ingress=[rule])
    assert verdict(engine(*PODS, policy, *accounts), "gw/edge", "db/pg-0", 5432) == expected


def test_a_policy_applies_to_pods_by_the_labels_of_their_account() -> None:
    policy = calico("GlobalNetworkPolicy", "p", serviceAccountSelector="kind == 'db'", types=["Ingress"])
    e = engine(*PODS, policy, account("db/store", kind="db"), account("db/default"))
    assert verdict(e, "gw/edge", "db/pg-0", 5432) == "deny"
    assert verdict(e, "gw/edge", "db/backup", 5432) == "allow"


def test_a_service_stands_for_its_endpoints_and_their_ports() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "pg", "namespace": "db"},
        "spec": {"selector": {"app": "pg"}, "ports": [{"port": 80, "targetPort": "sql"}]},
    }
    rule = {"action": "Allow", "destination": {"services": {"name": "pg", "namespace": "db"}}}
    policy = calico("NetworkPolicy", "gw/p", selector="all()", types=["Egress"], egress=[rule])
    e = engine(*PODS, policy, service)
    assert verdict(e, "gw/edge", "db/pg-0", 5432) == "allow"
    assert verdict(e, "gw/edge", "db/pg-0", 80) == "deny"
    assert verdict(e, "gw/edge", "db/backup", 5432) == "deny"
    assert verdict(engine(*PODS, policy), "gw/edge", "db/pg-0", 5432) == "unknown"
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "pg-1", "namespace": "db", "labels": {"kubernetes.io/service-name": "pg"}},
        "endpoints": [{"addresses": ["10.3.0.4"]}],
        "ports": [{"port": 5432}],
    }
    by_slice = engine(*PODS, policy, service, piece)
    assert verdict(by_slice, "gw/edge", "db/backup", 5432) == "allow"
    assert verdict(by_slice, "gw/edge", "db/pg-0", 5432) == "deny"


def test_a_patch_goes_into_the_tier_that_ends_in_the_drop() -> None:
    tier = calico("Tier", "security", order=100)
    rule = {"action": "Allow", "source": {"selector": "app == 'nobody'"}}
    closed = calico(
        "GlobalNetworkPolicy", "security.base", tier="security", order=7, selector="app == 'pg'", ingress=[rule]
    )
    e = engine(*PODS, tier, closed, netpol("db/open", ingress=[{}]))
    flow = PolicyFlow(end("gw/edge"), end("db/pg-0"), "TCP", 5432)
    found = patch(e, flow)
    assert found is not None and found.edit is not None and found.new is not None
    for option in (found.edit, found.new):
        changed = e.with_changes([KubeObject(c.object) for c in option.changes])
        assert changed is not None and changed.engine.explain(flow).verdict.value == "allow"
    assert found.new.changes[0].object["spec"]["tier"] == "security"
    assert [r["action"] for r in found.edit.changes[0].object["spec"]["ingress"]] == ["Allow", "Allow"]


def test_a_patch_edits_a_policy_of_calico_that_has_the_name_of_another() -> None:
    deny = calico("NetworkPolicy", "db/rules", order=3, selector="all()", ingress=[{"action": "Deny"}])
    e = engine(*PODS, deny, netpol("db/rules", ingress=[{}]))
    found = patch(e, PolicyFlow(end("gw/edge"), end("db/pg-0"), "TCP", 5432))
    assert found is not None and found.edit is not None
    assert found.edit.changes[0].object["apiVersion"] == V3
