"""Reading a real API server: what is listed, what is refused and named, how a watch goes on."""

import queue
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_genainet.kube import snapshot
from kubectl_genainet.kube.client import KubeClient, connect
from kubectl_genainet.kube.failures import Unreachable
from kubectl_genainet.kube.live import LiveCluster
from kubectl_genainet.kube.resources import ENDPOINT_SLICE, NODE, POD, SERVICE, discover
from kubectl_genainet.kube.resources import NAMESPACE as NAMESPACES
from kubectl_genainet.kube.snapshot import NOT_ASKED_FOR, list_objects, read_listings
from kubectl_genainet.kube.watch import Expired, ObjectChange, ObjectChangeKind, ObjectWatch, Selection, watch_once
from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.run.sources.cluster import ClusterSource
from tests.cluster.harness.api import ApiError, may
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.kubeproxy import endpoint_slice
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

NAMESPACE = "snapshots"
LISTS_OF_INGRESSES = r'^apiserver_request_total\{.*resource="ingresses".*verb="LIST".*\} (\d+)$'
SETUP = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: Service
metadata: {{name: my-llama-svc, namespace: {NAMESPACE}}}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {{app.kubernetes.io/name: my-llama-finetuned}}
  ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: read-pods, namespace: {NAMESPACE}}}
rules: [{{apiGroups: [""], resources: [pods], verbs: [list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: read-pods, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: read-pods}}
subjects: [{{kind: User, name: nobody, apiGroup: rbac.authorization.k8s.io}}]
"""


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    api = control_plane.api()
    api.apply(SETUP)
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    api.apply([endpoint_slice("my-llama-svc", ["10.244.1.10"], [port], namespace=NAMESPACE, node="n1")])
    api.apply([endpoint_slice("my-llama-svc", ["fd44::10"], [port], namespace=NAMESPACE, suffix="6")])
    for number in range(5):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p{number}", "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": False},
        }
        api.apply([pod])
    wait_for("nobody's role", lambda: may(control_plane.api("nobody"), "list", "pods", NAMESPACE))
    return control_plane


def kubeconfig(plane: ControlPlane, user: str = "admin", namespace: str = NAMESPACE) -> str:
    return str(plane.kubeconfig(user, namespace=namespace))


def test_a_snapshot_holds_services_and_endpoints_of_both_families(plane: ControlPlane) -> None:
    cluster = read_listings(connect(kubeconfig=kubeconfig(plane)))[0]
    service = cluster.service(NAMESPACE, "my-llama-svc")
    assert service is not None
    assert len(service.cluster_ips) == 2 and ":" in service.cluster_ips[1]
    backends = cluster.backends(service, service.spec.ports[0])
    assert [(b.ip, b.port, b.node) for b in backends] == [("10.244.1.10", 8080, "n1"), ("fd44::10", 8080, "")]
    assert {o.api_version for o in cluster.of("EndpointSlice")} <= {"discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"}
    assert [left.kind for left in cluster.left_out] == ["Secret"]
    assert not any("managedFields" in o.raw["metadata"] for o in cluster.objects)


def test_kinds_that_only_checks_ask_for_are_listed_for_checks_and_recordings_alone(plane: ControlPlane) -> None:
    backend = {"service": {"name": "my-llama-svc", "port": {"number": 80}}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "public", "namespace": NAMESPACE},
        "spec": {"defaultBackend": backend},
    }
    plane.api().apply([ingress])
    source = ClusterSource(kubeconfig=kubeconfig(plane))
    before = lists_of_ingresses(plane)
    assert not source.snapshot().of("Ingress")
    assert lists_of_ingresses(plane) == before
    assert LeftOut("Ingress", NOT_ASKED_FOR) in source.snapshot().left_out
    assert source.snapshot().services
    whole = source.snapshot(whole=True)
    assert "public" in {o.name for o in whole.of("Ingress") if o.namespace == NAMESPACE}
    assert lists_of_ingresses(plane) > before
    assert [left.kind for left in whole.left_out] == ["Secret"]
    assert source.snapshot() is whole


def lists_of_ingresses(plane: ControlPlane) -> int:
    """As the API server counts them."""
    metrics = plane.api().get("/metrics")
    return sum(int(count) for count in re.findall(LISTS_OF_INGRESSES, metrics, re.MULTILINE))


def test_lists_are_read_page_by_page(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PAGE", 2)
    client = connect(kubeconfig=kubeconfig(plane))
    served, _ = discover(client, [POD])
    pods, version = list_objects(client, served[0], NAMESPACE)
    assert [p.name for p in pods] == ["p0", "p1", "p2", "p3", "p4"]
    assert int(version) > 0


def test_refused_kinds_are_named_and_a_namespace_that_is_allowed_is_read(plane: ControlPlane) -> None:
    cluster = read_listings(connect(kubeconfig=kubeconfig(plane, "nobody")), kinds=[POD, SERVICE, NODE])[0]
    assert sorted(o.name for o in cluster.objects) == ["p0", "p1", "p2", "p3", "p4"]
    reasons = {left.kind: left.reason for left in cluster.left_out}
    assert reasons["Pod"] == f"only those of namespace {NAMESPACE}: all namespaces may not be listed"
    assert 'User "nobody" cannot list resource "services"' in reasons["Service"]
    assert "can't list nodes: nodes is forbidden" in reasons["Node"]


@pytest.fixture(scope="module")
def forgetful(
    kubernetes_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ControlPlane, KubeClient]]:
    """An API server that forgets old versions within a second or two, instead of five minutes."""
    flags = {"watch-cache": "false", "etcd-compaction-interval": "1s"}
    with ControlPlane(kubernetes_binaries, tmp_path_factory.mktemp("forgetful"), "forgetful", flags) as plane:
        client = connect(kubeconfig=kubeconfig(plane, namespace="default"))
        wait_for("compaction", lambda: expired(client))
        yield plane, client


def expired(client: KubeClient) -> bool:
    served, _ = discover(client, [POD])
    try:
        with client.lines(served[0].path(), {"watch": "true", "resourceVersion": "1"}, read_timeout_s=1) as lines:
            return b'"code":410' in next(lines)
    except Unreachable:
        return False  # nothing to report within a second: not yet


def test_a_watch_from_an_expired_version_says_so(forgetful: tuple[ControlPlane, KubeClient]) -> None:
    _, client = forgetful
    served, _ = discover(client, [POD])
    with pytest.raises(Expired):
        list(watch_once(client, Selection(served[0], NAMESPACE), "1"))


def test_a_list_whose_next_page_expired_is_read_again(
    forgetful: tuple[ControlPlane, KubeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, client = forgetful
    names = [f"n{number}" for number in range(4)]
    plane.api().apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in names])
    served, _ = discover(client, [NAMESPACES])
    path = served[0].path()
    monkeypatch.setattr(snapshot, "PAGE", 2)
    send = client.request

    def slow(method: str, url: str, **options: Any) -> bytes:
        """The pause of a slow client between two pages: until the first page's version is forgotten."""
        if "continue" in options["query"]:
            plane.api().patch(f"{path}/n0", {"metadata": {"labels": {"touched": str(time.time())}}})
            wait_for("the token to expire", lambda: gone(plane, path, options["query"]["continue"]), interval=0.5)
        return send(method, url, **options)

    monkeypatch.setattr(client, "request", slow)
    found, _ = list_objects(client, served[0])
    assert len(found) == len({o.name for o in found})
    assert set(names) <= {o.name for o in found}


def gone(plane: ControlPlane, path: str, token: str) -> bool:
    try:
        plane.api().get(f"{path}?limit=2&continue={token}")
    except ApiError as error:
        return error.status == 410
    return False


def newer(watch: ObjectWatch, changed: queue.Queue[None]) -> tuple[KubeObject, ...]:
    """The objects after the next change."""
    changed.get(timeout=60)
    objects = watch.objects()
    assert objects is not None
    return objects


def names(watch: ObjectWatch, changed: queue.Queue[None]) -> list[str]:
    return [obj.name for obj in newer(watch, changed)]


@pytest.mark.timeout(600)
def test_a_watch_lists_again_after_410_and_survives_a_restart(forgetful: tuple[ControlPlane, KubeClient]) -> None:
    plane, client = forgetful
    served, _ = discover(client, [SERVICE])
    changed: queue.Queue[None] = queue.Queue()
    problems: queue.Queue[str] = queue.Queue()
    selection = Selection(served[0], "default")
    with ObjectWatch(client, selection, lambda: changed.put(None), problems.put) as watch:
        assert names(watch, changed) == ["kubernetes"]
        plane.daemons["kube-apiserver"].kill()
        assert "API server" in problems.get(timeout=60)
        plane.daemons["kube-apiserver"].start()
        plane.wait_ready()
        assert problems.get(timeout=120) == ""  # by then the version it had is compacted away: it listed again
        service = {"metadata": {"name": "after"}, "spec": {"ports": [{"port": 80}]}}
        plane.api().apply([{"apiVersion": "v1", "kind": "Service", **service}])
        assert names(watch, changed) == ["after", "kubernetes"]


def test_a_watch_follows_a_service(plane: ControlPlane) -> None:
    client = connect(kubeconfig=kubeconfig(plane))
    served, _ = discover(client, [ENDPOINT_SLICE])
    selection = Selection(served[0], NAMESPACE, "kubernetes.io/service-name=other")
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    changed: queue.Queue[None] = queue.Queue()
    with ObjectWatch(client, selection, lambda: changed.put(None)) as watch:
        assert newer(watch, changed) == ()
        plane.api().apply([endpoint_slice("other", ["10.244.1.20"], [port], namespace=NAMESPACE)])
        assert newer(watch, changed)[0].raw["endpoints"][0]["addresses"] == ["10.244.1.20"]
        plane.api().apply([endpoint_slice("other", ["10.244.1.21"], [port], namespace=NAMESPACE)])
        assert newer(watch, changed)[0].raw["endpoints"][0]["addresses"] == ["10.244.1.21"]
        plane.api().delete(f"{served[0].path(NAMESPACE)}/other-1")
        assert newer(watch, changed) == ()
        assert watch.objects() is None


def test_a_live_cluster_follows_endpoints_without_reading_everything_again(plane: ControlPlane) -> None:
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    with LiveCluster(connect(kubeconfig=kubeconfig(plane))) as live:
        service = live.snapshot.service(NAMESPACE, "my-llama-svc")
        assert service is not None
        before = live.snapshot
        assert live.newer() is None
        plane.api().apply([endpoint_slice("my-llama-svc", ["10.244.9.9"], [port], namespace=NAMESPACE, suffix="9")])
        after = wait_for("the change", live.newer)
        assert "10.244.9.9" in {b.ip for b in after.backends(service, service.spec.ports[0])}
        assert len(after.objects) == len(before.objects) + 1
        assert live.newer() is None
        plane.api().delete(
            f"{discover(connect(kubeconfig=kubeconfig(plane)), [ENDPOINT_SLICE])[0][0].path(NAMESPACE)}/my-llama-svc-9"
        )
        assert len(wait_for("the removal", live.newer).objects) == len(before.objects)


def test_a_watch_gives_changes_with_their_kind(plane: ControlPlane) -> None:
    client = connect(kubeconfig=kubeconfig(plane))
    served, _ = discover(client, [SERVICE])
    _, version = list_objects(client, served[0], NAMESPACE)
    plane.api().patch(f"{served[0].path(NAMESPACE)}/my-llama-svc", {"metadata": {"labels": {"touched": "yes"}}})
    for item in watch_once(client, Selection(served[0], NAMESPACE), version):
        if isinstance(item, ObjectChange):
            assert (item.kind, item.object.labels) == (ObjectChangeKind.MODIFIED, {"touched": "yes"})
            return


def test_a_policy_of_a_kind_that_no_entry_names_is_read(plane: ControlPlane) -> None:
    names = {"plural": "trafficpolicies", "singular": "trafficpolicy", "kind": "TrafficPolicy"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "trafficpolicies.example.org"},
        "spec": {"group": "example.org", "names": names, "scope": "Namespaced", "versions": [version]},
    }
    policy = {
        "apiVersion": "example.org/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "closed", "namespace": NAMESPACE},
        "spec": {"rules": [{"podSelector": {}}]},
    }
    api = plane.api()
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    api.request("POST", definitions, definition)
    policies = f"/apis/example.org/v1/namespaces/{NAMESPACE}/trafficpolicies"
    try:
        wait_for("the kind is served", lambda: api.request("POST", policies, policy), timeout=30)
        client = connect(kubeconfig=kubeconfig(plane))
        # The server tells of a new kind a moment after it serves it.
        found = wait_for("it is read", lambda: PolicyEngine(read_listings(client)[0]).unevaluated, timeout=30)
        assert [str(one.ref) for one in found] == [f"TrafficPolicy {NAMESPACE}/closed"]
    finally:
        api.request("DELETE", f"{definitions}/trafficpolicies.example.org")
