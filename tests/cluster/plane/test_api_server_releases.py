"""The client and `deploy` on API servers of older releases, without nodes: the newest is under all other tests."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from kubectl_genainet.completion import complete
from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.resources import Resource, Served, discover
from kubectl_genainet.kube.snapshot import read_listings
from tests.cluster.harness.api import collection
from tests.cluster.harness.binaries import OLDER_API_SERVERS, Binaries
from tests.cluster.harness.cluster import Cluster, Done, bind_roles, everything, rows
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.dry_run import tried_remedies
from tests.cluster.harness.processes import wait_for
from tests.cluster.plane.test_doctor_cluster import COMPLAINTS, NAMESPACE, OBJECTS, complaints

pytestmark = pytest.mark.cluster

ALWAYS_ON = ("--metrics", "--record", "--otlp-endpoint", "http://collector.monitoring.svc:4318")
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture(scope="module", params=OLDER_API_SERVERS)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cluster(release: str, kubernetes_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of that release, with faulty objects and one node that never gets a kubelet."""
    with ControlPlane(kubernetes_binaries, tmp_path_factory.mktemp("older"), "older", release=release) as plane:
        plane.api().apply(OBJECTS)
        labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        plane.api().patch("/api/v1/nodes/doctor-node", {"metadata": {"labels": labels}})
        yield Cluster(str(plane.kubeconfig(namespace=NAMESPACE)), plane=plane)


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Cluster:
    """With all that `deploy` can make, tried first without changes, and users bound to the three roles."""
    tried = cluster.deploy("--dry-run=server", *ALWAYS_ON)
    assert tried.status == 0 and "namespace genainet created (dry run)\n" in tried.out, tried.err
    done = cluster.deploy("--no-wait", *ALWAYS_ON)
    assert (done.status, done.err) == (0, "")
    assert {line.rpartition(" ")[2] for line in done.out.splitlines()} == {"created"}
    bind_roles(cluster)
    return cluster


def test_version_says_the_release_and_that_there_are_no_agents(cluster: Cluster, release: str) -> None:
    done = cluster.cli("version", "-o", "json")
    assert (done.status, json.loads(done.out)["server"]) == (0, f"v{release}")
    assert "no agents in namespace genainet" in done.err


def test_completion_lists_targets_and_namespaces(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)
    for words, begun, candidates in (
        (["explain"], "svc/", ["svc/my-llama-svc", "svc/openai", "svc/typo"]),
        (["explain"], "pod/my", ["pod/my-llama-0"]),
        (["doctor", "-n"], "d", ["default", NAMESPACE]),
    ):
        assert complete(words, begun) == (candidates, ":4")


def test_what_deploy_makes_is_stored_as_it_was_sent(deployed: Cluster) -> None:
    """A field that a release doesn't know is left out there: only strict validation refuses it."""
    api, strict = deployed.api(), "fieldManager=strict&force=true&dryRun=All&fieldValidation=Strict"
    for obj in json.loads(deployed.cli("deploy", "--dry-run=client", "-o", "json", *ALWAYS_ON).out)["items"]:
        place = f"{collection(obj)}/{obj['metadata']['name']}"
        api.request("PATCH", f"{place}?{strict}", obj, "application/apply-patch+yaml")
    template = api.get("/apis/apps/v1/namespaces/genainet/daemonsets/genainet-agent")["spec"]["template"]
    (agent,) = [c for c in template["spec"]["containers"] if c["name"] == "agent"]
    assert agent["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}
    assert "annotations" not in template["metadata"]


def test_an_administrator_repeats_deploy_and_changes_nothing(deployed: Cluster) -> None:
    for options in (("--no-wait",), ("--dry-run=server",)):
        done = deployed.deploy(*options, *ALWAYS_ON, user="deployer")
        assert (done.status, done.err) == (0, "")
        changed = [line for line in done.out.splitlines() if " unchanged" not in line]
        assert done.out and changed == []


def test_a_node_without_an_agent_is_named(deployed: Cluster) -> None:
    done = deployed.cli("status", "-o", "json", user="tracer")
    assert done.status == 1, done.err
    assert [(row["node"], row["state"]) for row in rows(done.out)] == [("doctor-node", "none")]


def test_doctor_finds_what_it_finds_on_the_newest_release(deployed: Cluster) -> None:
    done = deployed.cli("doctor", "-n", NAMESPACE, "-o", "json", user="viewer")
    assert done.status == 1, done.err
    answer = rows(done.out)
    assert complaints(answer) == COMPLAINTS
    outcomes = [row for row in answer if row["kind"] == "check"]
    assert len(outcomes) > 100
    assert not [row for row in outcomes if any("failed" in reason for reason in row["reasons"])]


def test_explain_evaluates_the_policies(deployed: Cluster) -> None:
    done = deployed.cli("explain", "pod/rag-app-0", "pod/my-llama-0:8080", "-n", NAMESPACE, user="viewer")
    assert done.status == 1, done.out + done.err
    assert f"DENY {NAMESPACE}/rag-app-0" in done.out and "the rule requires TCP 80" in done.out


def test_every_kind_that_the_release_serves_is_read(deployed: Cluster) -> None:
    snapshot, _ = read_listings(connect(kubeconfig=deployed.config_of("viewer")))
    assert [left.kind for left in snapshot.left_out] == ["Secret"]


# The newest release serves them all; the others, those of the set.
SOME_KINDS = (
    Resource("ServiceCIDR", "servicecidrs", "networking.k8s.io", ("v1",), namespaced=False),
    Resource("ResourceClaim", "resourceclaims", "resource.k8s.io", ("v1",)),
    Resource(
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        "admissionregistration.k8s.io",
        ("v1",),
        namespaced=False,
    ),
    Resource("PodCertificateRequest", "podcertificaterequests", "certificates.k8s.io", ("v1",)),
)
SERVED = {
    "1.34": {"ServiceCIDR", "ResourceClaim"},
    "1.35": {"ServiceCIDR", "ResourceClaim"},
    "1.36": {"ServiceCIDR", "ResourceClaim", "MutatingAdmissionPolicy"},
}


def test_a_kind_that_the_release_does_not_serve_is_said_not_to_be_offered(cluster: Cluster, release: str) -> None:
    client, kinds = connect(kubeconfig=cluster.kubeconfig), SERVED[release.rpartition(".")[0]]
    offered, missing = discover(client, SOME_KINDS)
    assert {served.resource.kind for served in offered} == kinds
    assert {left.kind: left.reason for left in missing} == {
        kind.kind: f"the server does not offer {kind.group} v1" for kind in SOME_KINDS if kind.kind not in kinds
    }
    optional = [msgspec.structs.replace(kind, optional=True) for kind in SOME_KINDS]
    assert discover(client, optional) == ([Served(kind, "v1") for kind in optional if kind.kind in kinds], [])


def test_every_change_that_a_remedy_makes_is_taken(cluster: Cluster) -> None:
    refused, taken = tried_remedies(cluster.api())
    assert refused == []
    assert len(taken) >= 30, sorted(taken)


NO_HOST_PID = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "no-host-pid"},
    "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["daemonsets"]}
            ]
        },
        "validations": [{"expression": "!object.spec.template.spec.hostPID", "message": "hostPID is for nobody"}],
    },
}
EVERYWHERE = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": {"name": "no-host-pid"},
    "spec": {"policyName": "no-host-pid", "validationActions": ["Deny"]},
}


def test_an_admission_policy_that_refuses_the_agents_is_quoted(deployed: Cluster) -> None:
    api = deployed.api()
    paths = [f"{ADMISSION}/{plural}" for plural in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")]
    for path, obj in zip(paths, (NO_HOST_PID, EVERYWHERE), strict=True):
        api.request("POST", path, obj)
    try:
        # In force once the API server's own informers have seen it.
        done = wait_for("a refusal", lambda: refused_deploy(deployed), 120, interval=0.5)
        assert done.status == 2
        assert "ValidatingAdmissionPolicy 'no-host-pid'" in done.err and "hostPID is for nobody" in done.err
        # It restricts no pod's traffic, whatever its name ends with.
        done = deployed.cli("explain", "pod/rag-app-0", "pod/my-llama-0:80", "-n", NAMESPACE, user="viewer")
        assert done.status == 0 and "no-host-pid" not in done.out + done.err, done.out + done.err
    finally:
        for path in paths:
            api.delete(f"{path}/no-host-pid")


def refused_deploy(cluster: Cluster) -> Done | None:
    done = cluster.deploy("--no-wait", *ALWAYS_ON)
    return done if done.status else None


def test_an_administrator_undeploys_and_nothing_is_left(deployed: Cluster) -> None:
    api = deployed.api()
    api.delete("/apis/rbac.authorization.k8s.io/v1/namespaces/genainet/rolebindings/test-trace")
    # The newest controllers, for want of older ones: they make the agents' pods, and finish what undeploy deletes.
    deployed.plane.start_controllers()  # type: ignore[union-attr]
    done = deployed.cli("undeploy", "--timeout", "200s", user="deployer", timeout=300)
    assert done.status == 0, done.err
    assert {name for name in everything(api) if "genainet" in name} == set()
