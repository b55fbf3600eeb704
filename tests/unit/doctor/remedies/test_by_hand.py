"""Remedies that leave the value to the user: done as their text says, they heal their finding and cause no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_genainet.doctor.report import Report
from kubectl_genainet.model.finding import Finding, Severity
from tests.unit.doctor.faults.case import Case
from tests.unit.doctor.faults.cases import CASES, report_on
from tests.unit.doctor.worlds.world import NS, World, each, meta

Hand = Callable[[World], None]
LABEL = "app.kubernetes.io/name"
BY_NAME = {case.name: case for case in CASES}


def rewritten(kind: str, name: str, namespace: str, *changes: tuple[str, str]) -> Hand:
    """Replaces text in an object, as `kubectl edit` shows it."""

    def hand(world: World) -> None:
        written = json.dumps(world.get(kind, name, namespace))
        for old, new in changes:
            assert old in written, (old, written)
            written = written.replace(old, new)
        world.add(json.loads(written))

    return hand


def put(kind: str, name: str, value: Any, *path: str | int, namespace: str = NS) -> Hand:
    """Sets a field of an object."""

    def hand(world: World) -> None:
        place: Any = world.get(kind, name, namespace)
        for step in path[:-1]:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
        place[path[-1]] = value

    return hand


def without(kind: str, name: str, *more: Hand) -> Hand:
    def hand(world: World) -> None:
        world.remove(kind, name)
        for other in more:
            other(world)

    return hand


def added(api: str, kind: str, name: str, **fields: Any) -> Hand:
    return lambda world: world.add({"apiVersion": api, "kind": kind, "metadata": meta(name, NS), **fields})


def cluster_wide(api: str, kind: str, name: str, **fields: Any) -> Hand:
    return lambda world: world.add({"apiVersion": api, "kind": kind, "metadata": meta(name), **fields})


def in_containers(kind: str, name: str, change: Callable[[dict[str, Any]], Any]) -> Hand:
    """Changes the first container of a controller's template and of its pods."""

    def hand(world: World) -> None:
        for spec in each(world, kind, name):
            change(spec["containers"][0])

    return hand


def both(*hands: Hand) -> Hand:
    def hand(world: World) -> None:
        for one in hands:
            one(world)

    return hand


def without_host_port(container: dict[str, Any]) -> None:
    del container["ports"][0]["hostPort"]


def without_fastrak(container: dict[str, Any]) -> None:
    container["env"] = [e for e in container["env"] if "FASTRAK" not in e["name"]]


def with_a_device(container: dict[str, Any]) -> None:
    container["resources"]["limits"]["rdma/hca"] = "1"
    container["volumeMounts"] = []
    container["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}


def picker(world: World) -> None:
    """The picker's Service under the name that the pool has, with its endpoints."""
    for one in (*world.of("Service"), *world.of("EndpointSlice")):
        written = json.dumps(one)
        if "my-llama-epp" in one["metadata"]["name"]:
            world.add(
                json.loads(written.replace('"my-llama-epp', '"epp').replace('"app": "epp"', '"app": "my-llama-epp"'))
            )


def nic_slice(world: World) -> None:
    """The slice that the class's driver publishes while it works."""
    whole = BY_NAME["network_device_anywhere"]
    sound = whole.base()
    whole.fault(sound)
    world.add(sound.get("ResourceSlice", "s-dra.net", ""))


INTERNET = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}}]
EIGHT = json.dumps([{"interfaceName": f"eth{i}", "network": f"vpc{i}"} for i in range(1, 9)])
INTERFACES = ("spec", "template", "metadata", "annotations", "networking.gke.io/interfaces")
CLAIMS = ("spec", "template", "spec", "resourceClaims")
ANY = {
    "deviceClassName": "dra.net",
    "selectors": [{"cel": {"expression": 'device.attributes["dra.net"].ifName == "eth1"'}}],
}
NIC = {"spec": {"devices": {"requests": [{"name": "nic", "exactly": ANY}]}}}
IN_EFFECT = {"conditions": [{"type": t, "status": "True", "reason": t} for t in ("Accepted", "Programmed")]}
PRINCIPALS = [{"from": [{"source": {"namespaces": [NS]}}]}]
FROM_RAG = [{"from": [{"podSelector": {"matchLabels": {LABEL: "rag-app"}}}]}]
WAYPOINT = {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]}
KUBE_PROXY = ("ConfigMap", "kube-proxy", "kube-system")
# By fault: words of the remedy's text, and what a user does who follows them.
HANDS: dict[str, tuple[str, Hand]] = {
    "flannel_vxlan": ("host-gw", rewritten("ConfigMap", "kube-flannel-cfg", "kube-flannel", ("vxlan", "host-gw"))),
    "antrea_encap": (
        "noEncap",
        rewritten("ConfigMap", "antrea-config", "kube-system", ("#trafficEncapMode", "trafficEncapMode")),
    ),
    "a_thousand_services_in_iptables": ("nftables", rewritten(*KUBE_PROXY, ("iptables", "nftables"))),
    "unknown_scheduler": ("Use lc", rewritten(*KUBE_PROXY, ("leastconn", "lc"))),
    "round_robin_for_streams": ("Use lc", rewritten(*KUBE_PROXY, ("scheduler: rr", "scheduler: lc"))),
    "rules_lag_for_a_minute": ("Use 1s", rewritten(*KUBE_PROXY, ("60s", "1s"))),
    "corefile_without_metrics": (
        "Add `prometheus`",
        rewritten("ConfigMap", "coredns", "kube-system", ("    cache 30", "    prometheus :9153\\n    cache 30")),
    ),
    "ingress_to_no_service": ("existing Service", rewritten("Ingress", "chat", NS, ("chat-ui", "chatbot-ui"))),
    "two_ingresses_one_path": ("Keep one of them", without("Ingress", "chat-two")),
    "canary_without_a_main_ingress": (
        "host and path of the main Ingress",
        rewritten("Ingress", "chat-canary", NS, ("canary.acme.test", "chat.acme.test")),
    ),
    "route_of_no_gateway": ("existing Gateway", rewritten("HTTPRoute", "my-llama", NS, ("inferences", "inference"))),
    "pool_without_pods": (
        "labels of the model servers",
        put("InferencePool", "my-llama", {LABEL: "my-llama-finetuned"}, "spec", "selector", "matchLabels"),
    ),
    "gloo_with_the_syntax_of_nccl": (
        "Name the device",
        in_containers("StatefulSet", "llama-train", lambda c: c["env"][-1].update(value="eth0")),
    ),
    "gpudirect_without_its_networks": (
        "unset its variables",
        in_containers("StatefulSet", "llama-train", without_fastrak),
    ),
    "three_networks_of_eight": (
        "Name all 8",
        both(
            put("StatefulSet", "llama-train", EIGHT, *INTERFACES),
            *(cluster_wide("networking.gke.io/v1", "Network", f"vpc{i}", spec={}) for i in range(4, 9)),
        ),
    ),
    "one_claim_for_all_replicas": (
        "resourceClaimTemplateName",
        both(
            put("StatefulSet", "llama-train", [{"name": "nic", "resourceClaimTemplateName": "nic"}], *CLAIMS),
            without("ResourceClaim", "nic", added("resource.k8s.io/v1", "ResourceClaimTemplate", "nic", spec=NIC)),
        ),
    ),
    "claim_that_no_container_names": (
        "Name it",
        in_containers("StatefulSet", "llama-train", lambda c: c["resources"].update(claims=[{"name": "ring"}])),
    ),
    "misspelt_policy_type": (
        "Correct spec.policyTypes[0]",
        rewritten("NetworkPolicy", "odd", NS, ('"Ingres"', '"Ingress"')),
    ),
    "misspelt_field": (
        "Correct the spelling of spec.podSelectr",
        rewritten("NetworkPolicy", "odd", NS, ("podSelectr", "podSelector")),
    ),
    "policy_for_everyone": (
        "Name the callers",
        put("NetworkPolicy", "qdrant-ingress-policy", FROM_RAG, "spec", "ingress"),
    ),
    "waypoint_that_is_not_there": (
        "Make the waypoint",
        added("gateway.networking.k8s.io/v1", "Gateway", "waypoint", spec=WAYPOINT, status=IN_EFFECT),
    ),
    "ztunnel_asked_for_methods": (
        "keep it to principals, namespaces and ports",
        put("AuthorizationPolicy", "post-only", PRINCIPALS, "spec", "rules"),
    ),
    "istio_leads_to_another_namespace": (
        "Name a Service of the cluster",
        rewritten("VirtualService", "chat", NS, (".chat.svc", ".chatbot.svc")),
    ),
    "metadata_one_hop_away": (
        "a higher limit serves all pods",
        put("EC2NodeClass", "default", 2, "spec", "metadataOptions", "httpPutResponseHopLimit", namespace=""),
    ),
    "selector_on_a_label_of_all_components": (
        "Select a label that only the pods of",
        put("Service", "my-llama-svc", {LABEL: "my-llama-finetuned"}, "spec", "selector"),
    ),
    "workers_behind_the_service": (
        'leaderworkerset.sigs.k8s.io/worker-index: "0"',
        put("Service", "my-llama-svc", "0", "spec", "selector", "leaderworkerset.sigs.k8s.io/worker-index"),
    ),
    "a_port_of_the_node_for_more_pods_than_nodes": (
        "instead of the node's port",
        in_containers("Deployment", "rag-app", without_host_port),
    ),
    "external_name_maps_a_port": ("take the ports off", put("Service", "embeddings", [], "spec", "ports")),
    "service_that_was_renamed": (
        "Service that exists",
        in_containers("Deployment", "rag-app", lambda c: c["env"][0].update(value="http://qdrant:6333")),
    ),
    "grpc_behind_http": (
        "Set backend-protocol to GRPC",
        put("Ingress", "vectors", "GRPC", "metadata", "annotations", "nginx.ingress.kubernetes.io/backend-protocol"),
    ),
    "gateway_repeats_prompts": (
        "connect-failure and refused-stream",
        rewritten("BackendTrafficPolicy", "again", NS, ('"reset"', '"refused-stream"')),
    ),
    "gateway_that_takes_its_own_namespace_only": (
        "allowedRoutes",
        put("Gateway", "inference", {"namespaces": {"from": "All"}}, "spec", "listeners", 0, "allowedRoutes"),
    ),
    "trainer_with_a_sidecar": (
        'label sidecar.istio.io/inject: "false"',
        both(
            put("Job", "tune", {"sidecar.istio.io/inject": "false"}, "spec", "template", "metadata", "labels"),
            put("Pod", "tune-x", {"sidecar.istio.io/inject": "false"}, "metadata", "labels"),
            lambda world: world.get("Pod", "tune-x")["spec"]["containers"].pop(),  # made anew by the Job
        ),
    ),
    "half_a_slice": ("Run 4 pods", put("Job", "tune", 4, "spec", "parallelism")),
    "tls_secret_missing": ("", added("v1", "Secret", "chat-tls", type="kubernetes.io/tls")),
    "network_that_does_not_exist": (
        "Name an existing one",
        rewritten("Deployment", "my-llama-finetuned", NS, ("rdma-nett", "rdma-net")),
    ),
    "pool_without_a_picker": ("Install the endpoint picker", picker),
    "device_files_of_the_node": (
        "Request the device of an RDMA device plugin",
        both(
            in_containers("StatefulSet", "llama-train", with_a_device),
            put("StatefulSet", "llama-train", [], "spec", "template", "spec", "volumes"),
        ),
    ),
    "policy_for_nobody": (
        "labels that the pods have",
        put("NetworkPolicy", "typo", {"matchLabels": {LABEL: "rag-app"}}, "spec", "podSelector"),
    ),
    "rule_for_a_client_that_does_not_exist": (
        "labels that the peers have",
        rewritten("NetworkPolicy", "my-llama-ingress-policy", NS, ('"chat-ui"', '"chatbot-ui"')),
    ),
    "class_that_no_slice_serves": ("repair the driver", nic_slice),
    "api_admitted_by_address": (
        "admit the port to the internet but not to private ranges",
        put("NetworkPolicy", "rag-egress", INTERNET, "spec", "egress", 2, "to"),
    ),
    "cilium_policy_under_calico": ("Say the same with NetworkPolicies", without("CiliumNetworkPolicy", "left")),
}


def by_hand(case: Case, hand: Hand) -> Report:
    world = case.base()
    case.fault(world)
    hand(world)
    return world.report()


def of_its_check(report: Report, case: Case) -> list[Finding]:
    return [f for f in report.findings if f.check == case.check and str(f.object) == case.object]


@pytest.mark.parametrize("name", HANDS)
def test_what_a_remedy_tells_the_user_to_do_heals_its_finding(name: str) -> None:
    case, (words, hand) = BY_NAME[name], HANDS[name]
    before = report_on(case)
    (finding, *_) = of_its_check(before, case)
    assert finding.remedy is not None and words in finding.remedy.text
    after = by_hand(case, hand)
    assert of_its_check(after, case) == []
    known = {(f.check, str(f.object)) for f in before.findings}
    new = [f for f in after.findings if f.severity is not Severity.INFO and (f.check, str(f.object)) not in known]
    assert new == []
