"""Which kinds a server offers: one that is offered in other versions only was not read, and is said so."""

from __future__ import annotations

import json
from typing import Any

from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.kube.resources import ENDPOINT_SLICE, Resource, discover

POLICY = Resource("CiliumNetworkPolicy", "ciliumnetworkpolicies", "cilium.io", ("v2",), optional=True)


class Server:
    """Answers discovery from `{group: {version: plurals}}`."""

    def __init__(self, offered: dict[str, dict[str, list[str]]], failing: dict[str, int] | None = None) -> None:
        self.offered, self.failing = offered, failing or {}

    def request(self, method: str, path: str, **_: Any) -> bytes:
        if path == "/apis":
            listed = [
                {
                    "name": group,
                    "versions": [{"version": version} for version in versions],
                    "preferredVersion": {"version": next(iter(versions))},
                }
                for group, versions in self.offered.items()
            ]
            return json.dumps({"groups": listed}).encode()
        if status := self.failing.get(path):
            raise ApiError("can't ask: the server is currently unable to handle the request", "", status, "")
        group, version = path.removeprefix("/apis/").split("/")
        return json.dumps({"resources": [{"name": name} for name in self.offered[group][version]]}).encode()


def found(
    offered: dict[str, dict[str, list[str]]], resource: Resource, failing: dict[str, int] | None = None
) -> tuple[list[str], list[str]]:
    served, left_out = discover(Server(offered, failing), [resource])  # type: ignore[arg-type]
    return [one.api_version for one in served], [left.reason for left in left_out]


def test_a_version_that_is_understood_is_read() -> None:
    offered = {"cilium.io": {"v3": ["ciliumnetworkpolicies"], "v2": ["ciliumnetworkpolicies"]}}
    assert found(offered, POLICY) == (["cilium.io/v2"], [])


def test_a_kind_that_is_offered_in_other_versions_only_is_left_out_and_not_absent() -> None:
    offered = {"cilium.io": {"v3": ["ciliumnetworkpolicies"], "v2alpha1": ["ciliumcidrgroups"]}}
    assert found(offered, POLICY) == ([], ["the server does not offer cilium.io v2, but v3"])


def test_an_add_on_that_is_not_installed_has_no_objects() -> None:
    assert found({}, POLICY) == ([], [])
    assert found({"cilium.io": {"v2": ["ciliumnodes"]}}, POLICY) == ([], [])


def test_a_built_in_kind_that_is_missing_is_left_out() -> None:
    reason = "the server does not offer discovery.k8s.io v1 or v1beta1"
    assert found({"discovery.k8s.io": {"v2": []}}, ENDPOINT_SLICE) == ([], [reason])
    assert found({}, ENDPOINT_SLICE) == ([], [reason])


def test_an_api_that_does_not_answer_leaves_its_kinds_unread_and_stops_nothing_else() -> None:
    offered = {"cilium.io": {"v2": ["ciliumnetworkpolicies"]}}
    assert found(offered, POLICY, {"/apis/cilium.io/v2": 503}) == (
        [],
        ["can't ask: the server is currently unable to handle the request"],
    )


def test_a_version_that_has_gone_or_is_not_served_yet_has_no_objects() -> None:
    offered = {"cilium.io": {"v2": ["ciliumnetworkpolicies"]}}
    assert found(offered, POLICY, {"/apis/cilium.io/v2": 404}) == ([], [])


def test_a_kind_that_two_groups_have_is_read_where_its_objects_are_stored() -> None:
    stored_in = "crd.projectcalico.org"
    policy = Resource("NetworkPolicy", "networkpolicies", "projectcalico.org", (), optional=True, stored_in=stored_in)
    shown = {"projectcalico.org": {"v3": ["networkpolicies"]}}
    assert found(shown, policy) == (["projectcalico.org/v3"], [])
    assert found({**shown, stored_in: {"v1": ["networkpolicies"]}}, policy) == ([], [])
