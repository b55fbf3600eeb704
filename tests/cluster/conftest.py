"""Fixtures for tests against a real Kubernetes.

    kubernetes_binaries   what scripts/kubernetes.sh has built: harness.binaries.Binaries (session)
    control_plane         etcd and kube-apiserver, shared by the session: harness.controlplane.ControlPlane
    cluster               two whole nodes with the chatbot application, in each of kube-proxy's modes: harness.cluster.Cluster
    kube_proxy            a factory: kube_proxy("node-1", {"clusterCIDR": …}) -> harness.kubeproxy.KubeProxy

A test that restarts or breaks the control plane makes one of its own: `with ControlPlane(binaries, tmp_path) as plane`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster, bind_roles, install_application
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.image import AGENT, shared_images
from tests.cluster.harness.kubeproxy import KubeProxy
from tests.cluster.harness.node import start_nodes
from tests.cluster.harness.processes import remove_leftovers


@pytest.fixture(scope="session")
def kubernetes_binaries() -> Binaries:
    """Skips where it can't be used (no root); what is not built is a failure, not a skip."""
    if os.geteuid() != 0:
        pytest.skip("a control plane of its own needs root, for network namespaces")
    for tool in ("openssl", "ip", "nsenter", "setpriv"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing")
    built = Binaries.built()
    remove_leftovers()
    return built


@pytest.fixture(scope="session")
def control_plane(kubernetes_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(kubernetes_binaries, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture
def kube_proxy(control_plane: ControlPlane) -> Iterator[Callable[..., KubeProxy]]:
    started: list[KubeProxy] = []

    def start(name: str, config: dict[str, Any] | None = None) -> KubeProxy:
        started.append(KubeProxy(control_plane, name, config))
        return started[-1]

    yield start
    for proxy in started:
        proxy.stop()


def proxy_modes() -> list[str]:
    """In which modes of kube-proxy the tests run: $GENAINET_TEST_PROXY_MODE or both; another cluster's is what it is."""
    if os.environ.get("GENAINET_TEST_KUBECONFIG"):
        return ["as it is"]
    chosen = os.environ.get("GENAINET_TEST_PROXY_MODE")
    return [chosen] if chosen else ["iptables", "nftables"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test waits for two whole nodes and the agent's image."""
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two whole nodes with the chatbot application, without agents; or $GENAINET_TEST_KUBECONFIG as it is."""
    other = os.environ.get("GENAINET_TEST_KUBECONFIG")
    if other:
        yield Cluster(other, os.environ.get("GENAINET_TEST_IMAGE", AGENT))
        return
    binaries = request.getfixturevalue("kubernetes_binaries")
    for tool in ("podman", "debootstrap"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing: the agent's image can't be built")
    folder, run = tmp_path_factory.mktemp("cluster"), tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent  # of all workers
    # With ServiceAccount admission, which a control plane without controllers has to leave out.
    with ControlPlane(binaries, folder, "cluster", {"disable-admission-plugins": ""}) as plane:
        plane.proxy_mode = proxy_modes()[0]
        plane.start_controllers()
        with shared_images(binaries, tmp_path_factory.mktemp("image"), run) as images:
            nodes = start_nodes(plane, 2, images)
        try:
            install_application(plane, AGENT)
            yield Cluster(str(plane.kubeconfig()), AGENT, nodes, plane)
        finally:
            for node in nodes:
                node.stop()


@pytest.fixture(scope="module", params=proxy_modes())
def cluster(two_nodes: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """The two nodes, with kube-proxy in each mode in turn. It cleans up what the other mode has left itself."""
    if two_nodes.plane is not None:
        two_nodes.run_kube_proxies(request.param)
    return two_nodes


_BINDINGS = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with agents that are ready, and users bound to the three roles."""
    done = cluster.deploy()
    assert done.status == 0, done.err
    bind_roles(cluster)
    yield cluster
    api = cluster.api()
    for name in ("clusterrolebindings/test-view", "clusterrolebindings/test-admin"):
        api.delete(f"{_BINDINGS}/{name}")
    api.delete(f"{_BINDINGS}/namespaces/genainet/rolebindings/test-trace")
    cluster.cli("undeploy")


@pytest.fixture
def own(deployed: Cluster) -> Cluster:
    if deployed.plane is None:
        pytest.skip("breaks a node or the API server, or looks into a node: not on another's cluster")
    return deployed
