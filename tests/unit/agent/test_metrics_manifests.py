"""What ships for Prometheus and Grafana asks for metrics and labels that the agent has, in PromQL that parses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from kubectl_genainet.agent.always.metrics import Metrics
from kubectl_genainet.agent.always.otlp import LogExporter, OtlpEndpoint
from kubectl_genainet.agent.always.otlp_metrics import MetricsExporter
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.agent.always.session import AlwaysOn, OwnCost
from kubectl_genainet.assets import asset_dir
from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.agents.base import DeployOptions, always_on_extras, render
from kubectl_genainet.kube.agents.paths import object_path
from kubectl_genainet.kube.agents.record import RecordChoices
from kubectl_genainet.kube.names import NAMED

FOLDER = asset_dir("daemonset") / "metrics"
MONITORING = FOLDER / "monitoring"
DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
NAME = re.compile(r"\bgenainet_[a-z_]+")
TARGET_LABELS = {"node", "le"}  # node by the ServiceMonitor, le of every histogram


def registry() -> CollectorRegistry:
    """All metrics of an agent that has every option, each with a label set."""
    metrics = Metrics(Owners())
    AlwaysOn("node-1", "", "", metrics, ())
    OwnCost(metrics.registry, lambda: None, list)
    LogExporter(OtlpEndpoint.parse("http://127.0.0.1"), metrics.registry)
    MetricsExporter(OtlpEndpoint.parse("http://127.0.0.1"), metrics.registry)
    return metrics.registry


def exported() -> dict[str, set[str]]:
    """The names that a scrape can have, with their labels."""
    found: dict[str, set[str]] = {}
    for collector in registry()._collector_to_names:
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            labels = labels | {label for sample in family.samples for label in sample.labels}
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
            found |= {family.name + suffix: labels for suffix in suffixes}
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return found


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in dashboard()["panels"]:
        asked = (target["expr"] for target in panel.get("targets", ()) if "expr" in target)  # the others ask ClickHouse
        yield from (re.sub(r"\$__rate_interval", "5m", expression) for expression in asked)


def test_every_metric_of_alerts_and_dashboard_is_exported() -> None:
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    asked |= {n for v in dashboard()["templating"]["list"] for n in NAME.findall(v["query"])}
    assert asked - exported().keys() == set()
    assert len(asked) > 12


def test_every_expression_is_promql_and_its_labels_exist() -> None:
    parser = pytest.importorskip("promql_parser")
    have = exported()
    for expression in expressions():
        parser.parse(expression)
        names = NAME.findall(expression)
        labels = set().union(*(have[name] for name in names)) | TARGET_LABELS
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
        asked |= {x.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for x in group.split(",")}
        assert asked <= labels, expression


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert len(rule["annotations"]["runbook"]) > 60, rule["alert"]
        in_expression = set(re.findall(r"\w+", rule["expr"])) | TARGET_LABELS
        assert set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))) <= in_expression
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 10


def test_counters_and_units_are_named_as_prometheus_wants_it() -> None:
    for family in registry().collect():
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"_(ms|ns|milliseconds|count|kb)$", family.name)


def test_every_metric_is_documented_and_no_other() -> None:
    described = {
        re.sub(r"_(bucket|sum|count)$", "", n) for n in NAME.findall(DOCUMENT.read_text()) if not n.endswith("_")
    }
    have = {re.sub(r"_(bucket|sum|count)$", "", n) for n in exported()}
    assert described == have


def test_every_file_of_the_kustomizations_is_there() -> None:
    for file in (FOLDER / "kustomization.yaml", MONITORING / "kustomization.yaml"):
        kustomization = yaml.safe_load(file.read_text())
        names = kustomization["resources"] + [p["path"] for p in kustomization.get("patches", ())]
        names += [f for g in kustomization.get("configMapGenerator", ()) for f in g["files"]]
        present = {p.name for p in file.parent.iterdir() if p.is_file()} - {"kustomization.yaml"}
        assert set(names) == present


def test_the_service_monitor_finds_the_port_that_the_agent_has() -> None:
    (monitor,) = (yaml.safe_load((MONITORING / "servicemonitor.yaml").read_text()),)
    service = yaml.safe_load((FOLDER / "service.yaml").read_text())
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]
    assert monitor["spec"]["endpoints"][0]["honorLabels"] is True


# --- deploy ---------------------------------------------------------------------------------------------------------

URL = "http://collector.monitoring.svc:4319"


def objects(**options: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(o["kind"], o["metadata"]["name"]): o for o in render(DeployOptions(**options))}


def pod(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = objects(**options)["DaemonSet", "genainet-agent"]["spec"]["template"]["spec"]
    return found


def test_metrics_are_off_unless_asked_for() -> None:
    assert "--metrics" not in pod()["containers"][0]["args"] and "ports" not in pod()["containers"][0]
    assert {name for _, name in objects()} & {"genainet-metrics", "genainet-names", "genainet-otlp"} == set()
    assert not [v for v in pod()["volumes"] if "projected" in v]


def test_deploy_with_metrics_adds_arguments_port_names_and_who_may_scrape() -> None:
    before, after = pod()["containers"][0], pod(metrics=True)["containers"][0]
    assert after["args"][: len(before["args"])] == before["args"]
    assert after["args"][len(before["args"]) :] == [
        "--metrics",
        ":9913",
        "--identities",
        "/run/genainet-names/identities.json",
    ]
    assert after["ports"] == [{"name": "metrics", "containerPort": 9913, "protocol": "TCP"}]
    assert after["resources"]["requests"] == {"cpu": "50m", "memory": "160Mi"}
    changed = {k for k in after if after[k] != before.get(k)}
    assert changed == {"args", "ports", "resources", "volumeMounts"}
    made = objects(metrics=True, monitoring=True, namespace="tracing")
    assert {o["metadata"].get("namespace", "tracing") for o in made.values()} == {"tracing"}
    (rule,) = made["NetworkPolicy", "genainet-metrics"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": 9913, "protocol": "TCP"}]
    assert rule["from"][0].keys() == {"namespaceSelector", "podSelector"}


def test_only_the_container_without_privileges_has_a_token() -> None:
    spec = pod(metrics=True, image="r/agent:1")
    (token,) = [v["name"] for v in spec["volumes"] if "serviceAccountToken" in str(v)]
    agent, names = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert [c["name"] for c in (agent, names) if token in {m["name"] for m in c["volumeMounts"]}] == ["names"]
    assert (names["image"], names["securityContext"]["capabilities"]) == ("r/agent:1", {"drop": ["ALL"]})
    assert names["securityContext"]["runAsNonRoot"] and not names["securityContext"]["allowPrivilegeEscalation"]
    shared = {m["name"]: m.get("readOnly", False) for m in agent["volumeMounts"]}
    assert shared["names"] is True


def test_what_follows_names_may_list_and_watch_three_kinds_and_reach_the_api_server() -> None:
    made = objects(metrics=True, namespace="tracing", api_port=8443)
    granted = {
        (group, resource, verb)
        for rule in made["ClusterRole", "genainet-names"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    kinds = {(resource.group, resource.plural) for resource in NAMED}
    assert granted == {(*kind, verb) for kind in kinds for verb in ("list", "watch")}
    binding = made["ClusterRoleBinding", "genainet-names"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "genainet-agent", "namespace": "tracing"}]
    assert binding["roleRef"]["name"] == "genainet-names"
    (rule,) = made["NetworkPolicy", "genainet-names"]["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443, 6443, 8443]


def test_the_operators_kinds_are_applied_where_the_cluster_has_them() -> None:
    without = objects(metrics=True).keys()
    assert objects(metrics=True, monitoring=True).keys() - without == {
        ("ServiceMonitor", "genainet-agent"),
        ("PrometheusRule", "genainet-agent"),
        ("ConfigMap", "genainet-dashboard"),
    }
    board = objects(metrics=True, monitoring=True)["ConfigMap", "genainet-dashboard"]
    assert json.loads(board["data"]["dashboard.json"]) == dashboard()
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    for obj in objects(metrics=True, monitoring=True).values():
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kubectl-genainet"


def test_deploy_with_a_collector_opens_the_way_to_its_port_only() -> None:
    spec = pod(otlp_endpoint=URL)
    assert spec["containers"][0]["args"][-2:] == ["--otlp-endpoint", URL]
    assert spec["dnsPolicy"] == "ClusterFirst" and pod()["dnsPolicy"] == "Default"
    policy = objects(otlp_endpoint=URL)["NetworkPolicy", "genainet-otlp"]["spec"]
    assert policy["policyTypes"] == ["Egress"]
    assert [(p["port"], p["protocol"]) for p in policy["egress"][0]["ports"]] == [
        (4319, "TCP"),
        (53, "UDP"),
        (53, "TCP"),
    ]
    with pytest.raises(InputError):
        objects(otlp_endpoint="collector:4318")


def test_what_an_earlier_deploy_made_is_known_to_the_next_and_to_undeploy() -> None:
    def extras(**options: Any) -> set[str]:
        return {o["metadata"]["name"] for o in always_on_extras(DeployOptions(**options))}

    monitoring = {"genainet-agent", "genainet-dashboard"}  # the first are ServiceMonitor and PrometheusRule
    recorder = {"genainet-history", "genainet-objects"}
    assert extras() == {"genainet-metrics", "genainet-names", "genainet-otlp"} | monitoring | recorder
    assert extras(metrics=True) == {"genainet-otlp"} | monitoring | recorder
    assert extras(metrics=True, monitoring=True, otlp_endpoint=URL, record=RecordChoices()) == set()


def test_the_admin_role_may_make_and_remove_what_the_metrics_need() -> None:
    role = objects()["ClusterRole", "genainet-admin"]
    for obj in always_on_extras(DeployOptions()):
        plural = object_path(obj).split("/")[-2]
        verbs = {
            verb
            for rule in role["rules"]
            if plural in rule["resources"]
            and obj["metadata"]["name"] in rule.get("resourceNames", [obj["metadata"]["name"]])
            for verb in rule["verbs"]
        }
        assert {"create", "get", "patch", "delete"} <= verbs, plural


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_makes_of_the_component_what_deploy_applies(tmp_path: Path) -> None:
    shutil.copytree(asset_dir("daemonset"), tmp_path / "daemonset")
    kustomization = {"resources": ["daemonset/manifests"], "components": ["daemonset/metrics"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )
    built = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout)}
    applied = objects(metrics=True, image="localhost/kubectl-genainet-agent")
    assert applied.keys() == built.keys()
    pods = [found["DaemonSet", "genainet-agent"]["spec"]["template"]["spec"] for found in (built, applied)]
    for spec in pods:
        spec["volumes"].sort(key=lambda v: v["name"])
        spec["containers"][0]["volumeMounts"].sort(key=lambda m: m["name"])
    assert pods[0] == pods[1]
