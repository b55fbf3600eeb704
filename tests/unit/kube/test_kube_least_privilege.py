"""What `deploy` grants, in full: a right, a mount or a way that is added is added here too, where it is argued for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_genainet.kube.agents.base import DeployOptions, render
from kubectl_genainet.kube.agents.record import RecordChoices

Right = tuple[str, str, str]  # verb, group/resource, name ("": all)
NOBODY = 65532
EVERYTHING = DeployOptions(
    metrics=True, monitoring=True, otlp_endpoint="http://collector:4319", record=RecordChoices(), api_port=8443
)


def objects(options: DeployOptions = EVERYTHING) -> dict[tuple[str, str], dict[str, Any]]:
    return {(o["kind"], o["metadata"]["name"]): o for o in render(options)}


def rights(kind: str, name: str) -> set[Right]:
    return {
        (verb, f"{group}/{resource}".lstrip("/"), named)
        for rule in objects()[kind, name]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for named in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def of(verbs: str, resource: str, *names: str) -> set[Right]:
    return {(verb, resource, name) for verb in verbs.split() for name in names or ("",)}


FORWARDING = of("list", "pods") | of("create get", "pods/portforward")
RBAC = "rbac.authorization.k8s.io"
ROLES = ("genainet-view", "genainet-trace", "genainet-admin", "genainet-names", "genainet-history")
GRANTED: dict[tuple[str, str], set[Right]] = {
    ("ClusterRole", "genainet-trace"): FORWARDING
    | of("get list", "apps/daemonsets")
    | of("get", "apps/deployments", "genainet-objects")
    | of("get", "secrets", "genainet-trace"),
    ("ClusterRole", "genainet-history"): FORWARDING | of("get", "secrets", "genainet-history"),
    ("Role", "genainet-objects"): of("create", "coordination.k8s.io/leases")
    | of("get update", "coordination.k8s.io/leases", "genainet-objects"),
    ("ClusterRole", "genainet-admin"): of("create get patch delete", "namespaces")
    | of("create", "serviceaccounts")
    | of("create", "secrets")
    | of("get patch delete", "serviceaccounts", "genainet-agent", "genainet-objects")
    | of("get delete", "secrets", "genainet-trace", "genainet-history")
    | of("create get list patch delete", "apps/daemonsets")
    | of("create get list patch delete", "apps/deployments")
    | of("create get list patch delete", "networking.k8s.io/networkpolicies")
    | of("create", "services")
    | of("create", "configmaps")
    | of("get patch delete", "services", "genainet-metrics")
    | of("get patch delete", "configmaps", "genainet-dashboard")
    | of("create", "monitoring.coreos.com/servicemonitors")
    | of("create", "monitoring.coreos.com/prometheusrules")
    | of("get patch delete", "monitoring.coreos.com/servicemonitors", "genainet-agent")
    | of("get patch delete", "monitoring.coreos.com/prometheusrules", "genainet-agent")
    | of("get", "endpoints", "kubernetes")
    | of("create", f"{RBAC}/clusterrolebindings")
    | of("get patch delete", f"{RBAC}/clusterrolebindings", "genainet-names", "genainet-objects")
    | of("create", f"{RBAC}/roles")
    | of("create", f"{RBAC}/rolebindings")
    | of("get patch delete escalate bind", f"{RBAC}/roles", "genainet-objects")
    | of("get patch delete escalate bind", f"{RBAC}/rolebindings", "genainet-objects")
    | of("create get patch delete", "scheduling.k8s.io/priorityclasses")
    | of("create get", f"{RBAC}/clusterroles")
    | of("patch delete escalate", f"{RBAC}/clusterroles", *ROLES)
    | of("bind", f"{RBAC}/clusterroles", "genainet-names", "genainet-view")
    | of("list", "pods")
    | of("list", "events")
    | of("get", "pods/log"),
}


@pytest.mark.parametrize(("kind", "name"), GRANTED)
def test_each_role_may_do_this_and_no_more(kind: str, name: str) -> None:
    assert rights(kind, name) == GRANTED[kind, name]


def test_whom_a_role_is_bound_to() -> None:
    """People bind theirs themselves."""
    bound = {
        (name, found["roleRef"]["kind"], found["roleRef"]["name"], found["subjects"][0]["name"])
        for (kind, name), found in objects().items()
        if kind in ("RoleBinding", "ClusterRoleBinding") and len(found["subjects"]) == 1
    }
    assert bound == {
        ("genainet-names", "ClusterRole", "genainet-names", "genainet-agent"),
        ("genainet-objects", "ClusterRole", "genainet-view", "genainet-objects"),
        ("genainet-objects", "Role", "genainet-objects", "genainet-objects"),
    }
    accounts = {
        name: o["automountServiceAccountToken"] for (kind, name), o in objects().items() if kind == "ServiceAccount"
    }
    assert accounts == {"genainet-agent": False, "genainet-objects": False}


def pod_specs() -> Iterator[dict[str, Any]]:
    yield from (
        o["spec"]["template"]["spec"] for (kind, _), o in objects().items() if kind in ("DaemonSet", "Deployment")
    )


def test_all_but_the_agent_run_as_nobody_without_any_capability() -> None:
    contained = {}
    for spec in pod_specs():
        for container in spec["containers"]:
            security = {**spec.get("securityContext", {}), **container["securityContext"]}
            security.pop("fsGroup", None)
            contained[container["name"]] = security
    agent = contained.pop("agent")
    assert (agent["capabilities"]["drop"], agent["readOnlyRootFilesystem"]) == (["ALL"], True)
    nobody = {
        "runAsUser": NOBODY,
        "runAsGroup": NOBODY,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    }
    assert contained == {"names": nobody, "objects": nobody}


def test_what_containers_mount_and_which_ports_they_open() -> None:
    """Tokens are of an hour, and none is the agent's; secrets are read by who needs them; one host path, for the recording."""
    mounted, ports = {}, []
    for spec in pod_specs():
        for container in spec["containers"]:
            read_only = {m["name"] for m in container["volumeMounts"] if m.get("readOnly")}
            written = {m["name"] for m in container["volumeMounts"]} - read_only
            mounted[container["name"]] = (read_only, written)
            ports += container.get("ports", ())
    assert mounted == {
        "agent": ({"capability", "history-capability", "names"}, {"cache", "history"}),
        "names": ({"token"}, {"names"}),
        "objects": ({"history-capability", "token"}, {"history"}),
    }
    assert ports == [{"name": "metrics", "containerPort": 9913, "protocol": "TCP"}]
    volumes = [volume for spec in pod_specs() for volume in spec["volumes"]]
    tokens = [
        s["serviceAccountToken"]
        for v in volumes
        if "projected" in v
        for s in v["projected"]["sources"]
        if "serviceAccountToken" in s
    ]
    assert {token["expirationSeconds"] for token in tokens} == {3600} and len(tokens) == 2
    assert [v["hostPath"]["path"] for v in volumes if "hostPath" in v] == ["/var/lib/genainet"]
    secrets = {(v["secret"]["secretName"], v["secret"]["defaultMode"]) for v in volumes if "secret" in v}
    assert secrets == {("genainet-trace", 0o400), ("genainet-history", 0o400), ("genainet-history", 0o440)}


def test_who_reaches_what_over_the_network() -> None:
    agents = {"matchLabels": {"app.kubernetes.io/name": "genainet-agent"}}
    recorder = {"matchLabels": {"app.kubernetes.io/name": "genainet-objects"}}
    scrapers = {
        "namespaceSelector": {"matchLabels": {"genainet.scrape": "allowed"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    api = [{"port": port, "protocol": "TCP"} for port in (443, 6443, 8443)]
    collector = [{"port": port, "protocol": protocol} for port, protocol in ((4319, "TCP"), (53, "UDP"), (53, "TCP"))]
    policies = {name: found["spec"] for (kind, name), found in objects().items() if kind == "NetworkPolicy"}
    assert policies == {
        "genainet-agent": {"podSelector": agents, "policyTypes": ["Ingress", "Egress"]},
        "genainet-metrics": {
            "podSelector": agents,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [scrapers], "ports": [{"port": 9913, "protocol": "TCP"}]}],
        },
        "genainet-names": {"podSelector": agents, "policyTypes": ["Egress"], "egress": [{"ports": api}]},
        "genainet-otlp": {"podSelector": agents, "policyTypes": ["Egress"], "egress": [{"ports": collector}]},
        "genainet-objects": {
            "podSelector": recorder,
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"ports": api}],
        },
    }
    for (kind, name), found in objects().items():
        if kind in ("DaemonSet", "Deployment"):
            assert found["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == name
