"""Kinds that the plugin reads and of which the tests have no real definition: each has one made here, which takes anything.

They say nothing of what the projects' own schemas accept, but that the plugin's role, its discovery and its lists have the kind,
and that no check fails over an object that has next to nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.resources import KINDS, Resource
from kubectl_genainet.kube.snapshot import read_listings
from kubectl_genainet.model.cluster import ClusterSnapshot
from tests.cluster.harness.api import may
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster, role_bindings, rows
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.crds import Kubectl, Object, definitions
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

NAME = "made-up"  # of each object, and of the namespace


def without_definition(own_groups: set[str]) -> list[Resource]:
    """Of the kinds that the API server doesn't have by itself."""
    defined = {(d["spec"]["group"], d["spec"]["names"]["plural"]) for d in definitions()}
    return [kind for kind in KINDS if kind.group not in own_groups and (kind.group, kind.plural) not in defined]


def version(kind: Resource) -> str:
    return kind.versions[0] if kind.versions else "v1"


def definition(kind: Resource) -> Object:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{kind.group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, made up for tests"},
        },
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {"kind": kind.kind, "plural": kind.plural},
            "versions": [{"name": version(kind), "served": True, "storage": True, "schema": schema}],
        },
    }


def almost_empty(kind: Resource) -> Object:
    place = {"name": NAME, "namespace": NAME} if kind.namespaced else {"name": NAME}
    return {"apiVersion": f"{kind.group}/{version(kind)}", "kind": kind.kind, "metadata": place, "spec": {}}


@pytest.fixture(scope="module")
def cluster(kubernetes_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ControlPlane(kubernetes_binaries, tmp_path_factory.mktemp("made-up"), "made-up") as plane:
        kubectl, api = Kubectl(plane), plane.api()
        made_up = without_definition({"", *(group["name"] for group in api.get("/apis")["groups"])})
        kubectl.apply([definition(kind) for kind in made_up])
        kubectl.wait_for_definitions()
        api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}}])
        kubectl.apply([almost_empty(kind) for kind in made_up])
        kubectl.apply((asset_dir("daemonset") / "manifests" / "roles.yaml").read_text())
        cluster = Cluster(str(plane.kubeconfig(namespace=NAME)), plane=plane)
        api.apply([binding for binding in role_bindings(cluster) if binding["metadata"]["name"] == "test-view"])
        wait_for("the viewer's role", lambda: may(cluster.api("viewer"), "list", "pods", NAME))
        yield cluster


@pytest.fixture(scope="module")
def snapshot(cluster: Cluster) -> ClusterSnapshot:
    return read_listings(connect(kubeconfig=cluster.config_of("viewer")))[0]


def test_the_role_lets_every_kind_be_read(snapshot: ClusterSnapshot) -> None:
    assert [left.kind for left in snapshot.left_out] == ["Secret"]


def test_each_object_is_read_once(cluster: Cluster, snapshot: ClusterSnapshot) -> None:
    groups = {group["name"] for group in cluster.api().get("/apis")["groups"]}
    custom = {(kind.group, kind.plural): kind for kind in KINDS if kind.group in groups and "." in kind.group}
    defined = cluster.api().get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
    made_up = {(d["spec"]["group"], d["spec"]["names"]["plural"]) for d in defined}
    assert len(made_up) > 40
    unread = [
        key
        for key in made_up
        if (custom[key].stored_in, key[1]) not in made_up  # the same objects, which are read there
        and [obj.name for obj in snapshot.of(custom[key].kind, key[0])] != [NAME]
    ]
    assert unread == []


def test_doctor_judges_them_without_a_check_that_fails(cluster: Cluster) -> None:
    done = cluster.cli("doctor", "-A", "-o", "json", user="viewer")
    assert done.status in (0, 1), done.err
    outcomes = [row for row in rows(done.out) if row["kind"] == "check"]
    assert len(outcomes) > 100
    assert [row for row in outcomes if any("failed" in reason for reason in row["reasons"])] == []
