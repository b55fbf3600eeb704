"""A live cluster's policies of kinds that no entry names are read, where the server tells of all its kinds at once."""

from __future__ import annotations

import json
from typing import Any

from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.kube.resources import unknown_policies
from kubectl_genainet.model.cluster import LeftOut
from tests.unit.policy.policy_cluster import engine, namespace, pod, verdict


def group(name: str, *kinds: str, versions: tuple[str, ...] = ("v1",), scope: str = "Namespaced") -> dict[str, Any]:
    resources = [
        {"resource": f"{kind.lower()}s", "responseKind": {"kind": kind}, "scope": scope, "verbs": ["get", "list"]}
        for kind in kinds
    ]
    return {"metadata": {"name": name}, "versions": [{"version": v, "resources": resources} for v in versions]}


class Server:
    def __init__(self, answer: Any) -> None:
        self.answer, self.accepted = answer, ""

    def request(self, method: str, path: str, *, accept: str = "", **_: Any) -> bytes:
        assert (method, path) == ("GET", "/apis")
        self.accepted = accept
        if isinstance(self.answer, ApiError):
            raise self.answer
        return json.dumps(self.answer).encode()


def found(*groups: dict[str, Any]) -> list[tuple[str, str, bool]]:
    served = unknown_policies(Server({"items": list(groups)}))  # type: ignore[arg-type]
    return [(s.api_version, s.resource.kind, s.resource.namespaced) for s in served]


def test_kinds_that_are_policies_by_their_names_are_found_in_the_preferred_version() -> None:
    offered = group("example.org", "TrafficPolicy", "Widget", versions=("v2", "v1"))
    wide = group("nsx.example", "ClusterSecurityPolicy", "FooNetworkPolicySet", scope="Cluster")
    assert found(offered, wide) == [
        ("example.org/v2", "TrafficPolicy", True),
        ("nsx.example/v1", "ClusterSecurityPolicy", False),
        ("nsx.example/v1", "FooNetworkPolicySet", False),
    ]


def test_what_is_read_anyway_or_about_something_else_is_not_read_again() -> None:
    assert (
        found(
            group("networking.k8s.io", "NetworkPolicy"),
            group("cilium.io", "CiliumNetworkPolicy", "CiliumEgressGatewayPolicy"),
            group("kyverno.io", "ClusterPolicy"),
            group("nvidia.com", "ClusterPolicy"),
            group("policy", "PodDisruptionBudget"),
            group("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
            group("security.istio.io", "AuthorizationPolicy"),
        )
        == []
    )


def test_a_server_that_does_not_tell_of_all_kinds_at_once_is_taken_as_it_is() -> None:
    for answer in ({"groups": [{"name": "example.org"}]}, [1], ApiError("no", "", 406, "")):
        server = Server(answer)
        assert unknown_policies(server) == []  # type: ignore[arg-type]
        assert "as=APIGroupDiscoveryList" in server.accepted


def test_policies_of_the_network_that_may_not_be_read_leave_every_verdict_open() -> None:
    pods = (namespace("ai"), pod("ai/a", "10.0.0.1"), pod("ai/b", "10.0.0.2"))
    assert verdict(engine(*pods, left_out=(LeftOut("FooNetworkPolicy", "forbidden"),)), "ai/a", "ai/b") == "unknown"
    assert verdict(engine(*pods, left_out=(LeftOut("BackupPolicy", "forbidden"),)), "ai/a", "ai/b") == "allow"
