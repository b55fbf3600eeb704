"""What deploy applies: least privilege holds, roles match what is read, the user's choices arrive."""

from typing import Any

import pytest

from kubectl_genainet import __version__
from kubectl_genainet.assets import asset_dir
from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.agents.base import (
    DeployOptions,
    Toleration,
    capability,
    parse_node_selector,
    parse_tolerations,
    render,
)
from kubectl_genainet.kube.agents.paths import object_path
from kubectl_genainet.kube.agents.record import RecordChoices
from kubectl_genainet.kube.agents.roles import with_rules
from kubectl_genainet.kube.resources import KINDS
from kubectl_genainet.policy.left_out.other_kinds import OTHER_KINDS


def rendered(kind: str, name: str = "", **options: Any) -> dict[str, Any]:
    found = [o for o in render(DeployOptions(**options)) if o["kind"] == kind and name in ("", o["metadata"]["name"])]
    assert len(found) == 1
    return found[0]


def agent(**options: Any) -> dict[str, Any]:
    return dict(rendered("DaemonSet", **options)["spec"]["template"]["spec"])


def test_the_agent_has_only_the_capabilities_that_are_argued() -> None:
    security = agent()["containers"][0]["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["capabilities"]["add"] == [
        "SYS_ADMIN",
        "NET_ADMIN",
        "SYS_PTRACE",
        "SYSLOG",
        "NET_RAW",
        "SYS_RESOURCE",
    ]
    assert (security["privileged"], security["readOnlyRootFilesystem"]) == (False, True)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_agent_is_on_no_network_and_has_no_token() -> None:
    spec = agent()
    assert (spec["hostPID"], spec["hostNetwork"], spec["automountServiceAccountToken"]) == (True, False, False)
    assert "ports" not in spec["containers"][0]
    assert "127.0.0.1:9912" in spec["containers"][0]["args"]
    assert not [v for v in spec["volumes"] if "hostPath" in v]
    policy = rendered("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy and "egress" not in policy


def test_no_role_reads_secrets_but_the_capabilities() -> None:
    everything = DeployOptions(metrics=True, otlp_endpoint="http://collector:4318", record=RecordChoices())
    rules = [rule for o in render(everything) if o["kind"] in ("ClusterRole", "Role") for rule in o["rules"]]
    reading = [rule for rule in rules if {"get", "list", "watch", "*"} & set(rule["verbs"])]
    assert not [rule for rule in rules if "*" in rule["resources"]]
    named = [rule.get("resourceNames", ["any"]) for rule in reading if "secrets" in rule["resources"]]
    assert {name for names in named for name in names} == {"genainet-trace", "genainet-history"}


def test_the_view_role_reads_exactly_the_kinds_that_the_tool_lists() -> None:
    rules = rendered("ClusterRole", "genainet-view")["rules"]
    granted = {(group, resource) for r in rules for group in r["apiGroups"] for resource in r["resources"]}
    assert granted == {(resource.group, resource.plural) for resource in KINDS}
    in_part = {resource.plural for resource in KINDS if resource.query}  # listed with a selector, and not watched
    assert in_part == {"events"}
    assert all(
        rule["verbs"] == (["list"] if set(rule["resources"]) <= in_part else ["list", "watch"]) for rule in rules
    )


def test_the_rules_of_the_view_role_are_made_from_the_kinds() -> None:
    roles = (asset_dir("daemonset") / "manifests" / "roles.yaml").read_text()
    assert with_rules(roles) == roles, "python -m kubectl_genainet.kube.agents.roles writes them"


def test_every_policy_kind_without_a_compiler_is_read_from_clusters() -> None:
    listed = {(resource.group, resource.kind): resource for resource in KINDS}
    assert OTHER_KINDS.keys() <= listed.keys()
    assert all(listed[key].namespaced is other.namespaced for key, other in OTHER_KINDS.items())


def test_the_users_choices_arrive() -> None:
    options: dict[str, Any] = {
        "image": "r/agent:1",
        "namespace": "tracing",
        "node_selector": {"gpu": "true"},
        "tolerations": (),
    }
    spec = agent(**options)
    assert spec["containers"][0]["image"] == "r/agent:1"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "gpu": "true"}
    assert spec["tolerations"] == []
    assert rendered("Namespace", **options)["metadata"]["name"] == "tracing"
    assert {o["metadata"].get("namespace", "tracing") for o in render(DeployOptions(**options))} == {"tracing"}


def test_every_object_has_the_labels_by_which_undeploy_knows_it() -> None:
    for obj in (*render(DeployOptions()), capability("genainet")):
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kubectl-genainet"
        assert object_path(obj).endswith("/" + obj["metadata"]["name"])


def test_the_default_image_is_of_this_version_and_of_no_registry() -> None:
    assert agent()["containers"][0]["image"] == f"localhost/kubectl-genainet-agent:v{__version__}"


def test_capabilities_are_random_and_long() -> None:
    tokens = {capability("n")["stringData"]["token"] for _ in range(10)}
    assert len(tokens) == 10
    assert all(len(token) == 64 for token in tokens)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("all", (Toleration(operator="Exists"),)),
        ("none", ()),
        ("nvidia.com/gpu:NoSchedule", (Toleration("nvidia.com/gpu", "Exists", "", "NoSchedule"),)),
        ("a=b:NoExecute,c", (Toleration("a", "Equal", "b", "NoExecute"), Toleration("c", "Exists"))),
    ],
)
def test_tolerations_are_written_as_taints_are(text: str, wanted: tuple[Toleration, ...]) -> None:
    assert parse_tolerations(text) == wanted


@pytest.mark.parametrize("text", ["a:Sometimes", ":NoSchedule", "=b"])
def test_a_toleration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--tolerations"):
        parse_tolerations(text)


def test_node_selectors_are_key_value_pairs() -> None:
    assert parse_node_selector("a=b,c=") == {"a": "b", "c": ""}
    with pytest.raises(InputError, match="--node-selector"):
        parse_node_selector("a")
