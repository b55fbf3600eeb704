"""What the lab's controllers make of manifests."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.lab.api.controllers import build_objects, set_ready
from kubectl_genainet.lab.api.endpoints import with_endpoint_slices
from kubectl_genainet.lab.api.manifests import SHIPPED, read_folder
from kubectl_genainet.lab.datapath.rules import snapshot_of
from kubectl_genainet.lab.programs.start import dns_hosts, outside_calls, resolv_conf, workload_config
from kubectl_genainet.lab.spec import AddressFamily, LabSpec, ProxyMode, check_name, veth_name

Object = dict[str, Any]
DUAL = LabSpec(families=(AddressFamily.IPV4, AddressFamily.IPV6))


def shipped(spec: LabSpec = DUAL) -> list[Object]:
    return build_objects(spec, read_folder(SHIPPED / "system") + read_folder(SHIPPED / "app"))


def service(name: str = "web", **spec: Any) -> Object:
    defaults = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {**defaults, **spec}}


def pod(name: str, **spec: Any) -> Object:
    containers = [{"name": "c", "ports": [{"name": "http", "containerPort": 8000}]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": containers, **spec},
    }


def test_shipped_application_is_the_reference_application() -> None:
    snapshot = snapshot_of(shipped())
    counts: dict[str, int] = {}
    for found in snapshot.pods:
        labels = found.metadata.labels
        app = labels.get("app.kubernetes.io/name") or labels["k8s-app"]
        counts[app] = counts.get(app, 0) + 1
    assert counts == {"chatbot-ui": 2, "rag-app": 2, "qdrant": 1, "my-llama-finetuned": 3, "kube-dns": 2}
    llama = snapshot.service("default", "my-llama-svc")
    assert llama is not None
    assert (llama.spec.ports[0].port, llama.spec.ports[0].target_port) == (80, 8080)
    assert {p.spec.node_name for p in snapshot.pods if p.metadata.name.startswith("my-llama")} == {
        "node-1",
        "node-2",
        "node-3",
    }
    assert {o.name for o in snapshot.of("NetworkPolicy", "networking.k8s.io")} == {
        "rag-app-ingress-policy",
        "my-llama-ingress-policy",
        "qdrant-ingress-policy",
    }


def test_objects_are_the_same_every_time_and_have_unique_uids() -> None:
    first, second = shipped(), shipped()
    for found in (*first, *second):  # when endpoints last changed is the clock's
        found["metadata"].get("annotations", {}).pop("endpoints.kubernetes.io/last-change-trigger-time", None)
    assert first == second
    uids = [o["metadata"]["uid"] for o in first]
    assert len(set(uids)) == len(uids)


def test_pods_belong_to_their_deployment_through_a_replica_set() -> None:
    snapshot = snapshot_of(shipped())
    found = next(p for p in snapshot.pods if p.metadata.name.startswith("rag-app"))
    (owner,) = found.metadata.owner_references
    replica_set = next(o for o in snapshot.of("ReplicaSet", "apps") if o.name == owner.name)
    assert (owner.kind, owner.uid) == ("ReplicaSet", replica_set.raw["metadata"]["uid"])
    assert replica_set.raw["metadata"]["ownerReferences"][0]["name"] == "rag-app"


def test_dual_stack_gives_pods_services_and_slices_both_families() -> None:
    snapshot = snapshot_of(shipped())
    assert all(len(p.ips) == 2 for p in snapshot.pods)
    llama = snapshot.service("default", "my-llama-svc")
    assert llama is not None and len(llama.cluster_ips) == 2
    backends = snapshot.backends(llama, llama.spec.ports[0])
    assert sorted(":" in b.ip for b in backends) == [False] * 3 + [True] * 3


def test_named_target_port_is_looked_up_on_each_pod() -> None:
    other = pod("two")
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = 9000
    snapshot = snapshot_of(build_objects(LabSpec(), [service(), pod("one"), other]))
    web = snapshot.service("default", "web")
    assert web is not None
    assert {(b.pod, b.port) for b in snapshot.backends(web, web.spec.ports[0])} == {("one", 8000), ("two", 9000)}


def test_unready_pod_stays_in_the_slice_as_not_ready() -> None:
    objects = build_objects(LabSpec(), [service(), pod("one"), pod("two")])
    set_ready(next(o for o in objects if o["metadata"]["name"] == "two"), False)
    snapshot = snapshot_of(with_endpoint_slices(objects))
    web = snapshot.service("default", "web")
    assert web is not None
    assert {(b.pod, b.ready) for b in snapshot.backends(web, web.spec.ports[0])} == {("one", True), ("two", False)}


def test_services_get_the_addresses_they_ask_for_and_others_what_is_free() -> None:
    objects = build_objects(
        LabSpec(),
        [
            service("given", clusterIP="10.96.0.64"),
            service("any"),
            service("none", clusterIP="None"),
            service("front", type="LoadBalancer"),
            service("alias", type="ExternalName", externalName="x.example.com"),
        ],
    )
    found = {s.metadata.name: s for s in snapshot_of(objects).services}
    assert found["given"].cluster_ips == ("10.96.0.64",)
    assert found["any"].cluster_ips == ("10.96.0.65",)
    assert found["none"].cluster_ips == found["alias"].cluster_ips == ()
    assert found["front"].spec.ports[0].node_port == 30100
    assert found["front"].external_addresses == ("172.18.255.201",)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([pod("one"), pod("one")], "Pod default/one: is in the manifests twice"),
        ([pod("one", nodeName="nowhere")], "spec.nodeName: there is no node 'nowhere'"),
        ([service(ipFamilies=["IPv6"])], "none of its ipFamilies is the lab's"),
    ],
)
def test_manifests_that_no_cluster_would_take_are_refused(documents: list[Object], message: str) -> None:
    with pytest.raises(InputError) as error:
        build_objects(LabSpec(), documents)
    assert message in error.value.message


def test_host_network_pod_has_its_nodes_address() -> None:
    snapshot = snapshot_of(build_objects(LabSpec(), [pod("host", hostNetwork=True, nodeName="node-2"), pod("other")]))
    assert snapshot.pods[0].ips == ("172.18.0.3",)
    assert snapshot.pods[1].ips == ("10.244.1.2",)


def test_kube_proxy_config_map_says_the_mode() -> None:
    objects = shipped(LabSpec(proxy_mode=ProxyMode.NFTABLES))
    config = next(o for o in objects if o["kind"] == "ConfigMap")
    assert config["metadata"]["name"] == "kube-proxy"
    assert "\nmode: nftables\n" in config["data"]["config.conf"]


def test_resolv_conf_follows_the_dns_policy() -> None:
    objects = shipped(LabSpec())
    by_name = {o["metadata"]["name"].rsplit("-", 2)[0]: o for o in objects if o["kind"] == "Pod"}
    assert resolv_conf(by_name["rag-app"], objects, LabSpec()) == (
        "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
    assert resolv_conf(by_name["coredns"], objects, LabSpec()) == "nameserver 172.18.0.1\n"


def test_dns_serves_cluster_ips_and_the_ready_endpoints_of_headless_services() -> None:
    objects = build_objects(LabSpec(), [service(), service("headless", clusterIP="None"), pod("one")])
    assert dns_hosts(objects).splitlines() == [
        "10.96.0.64 web.default.svc.cluster.local",
        "10.244.1.2 headless.default.svc.cluster.local",
        "10.244.1.2 one.headless.default.svc.cluster.local",
    ]


def test_clients_outside_call_the_annotated_services_on_every_node() -> None:
    assert outside_calls(shipped(LabSpec())) == [f"http://172.18.0.{n}:30080/" for n in (2, 3, 4)]
    assert workload_config.__doc__


def test_names_fit_the_kernels_limits() -> None:
    assert len(veth_name("a-namespace", "a-pod-with-quite-a-long-name-0123456789")) <= 15
    for wrong in ("", "a-b", "UPPER", "x" * 21, "a/b"):
        with pytest.raises(InputError):
            check_name(wrong)
