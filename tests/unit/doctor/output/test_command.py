"""`doctor` as a user types it: exit status, formats, acceptance, what was not checked, listing and explaining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from kubectl_genainet.bundle import BundleWriter, new_header
from kubectl_genainet.commands.doctor import command
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.cluster import LeftOut
from tests.unit.doctor.worlds.clusters import eks, kubeadm
from tests.unit.doctor.worlds.knowledge import knowledge
from tests.unit.doctor.worlds.world import NOW, World


def recorded(world: World, path: Path) -> str:
    cluster = world.cluster()
    with BundleWriter(path, new_header("doctor", {}, NOW), cluster.snapshot) as bundle:
        for report in cluster.reports:
            bundle.write(report)
        for dump in cluster.rules.dumps:
            bundle.write(dump)
    return str(path)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def sound(tmp_path: Path) -> str:
    world = kubeadm()
    knowledge(world)
    return recorded(world, tmp_path / "sound.bundle")


@pytest.fixture
def faulty(tmp_path: Path) -> str:
    world = eks()
    world.get("Service", "qdrant")["spec"]["selector"] = {"app.kubernetes.io/name": "qdrnt"}  # an error
    world.get("ConfigMap", "coredns", "kube-system")["data"]["Corefile"] = ".:53 {\n ready\n cache\n}"  # a warning
    return recorded(world, tmp_path / "faulty.bundle")


def test_a_sound_cluster_exits_with_0_and_a_faulty_one_with_1(sound: str, faulty: str) -> None:
    assert run("--from", sound).return_value == 0
    assert run("--from", faulty).return_value == 1


def test_fail_on_sets_the_severity_that_counts(faulty: str) -> None:
    arguments = ("--from", faulty, "--ignore", "service-selector")
    assert run(*arguments).return_value == 1
    assert run(*arguments, "--fail-on", "error").return_value == 0


def test_only_runs_the_checks_of_an_area(faulty: str) -> None:
    records = json_records(run("--from", faulty, "--only", "coredns", "-o", "json"))
    assert {r["area"] for r in records if r["kind"] == "check"} == {"coredns"}
    assert [r["check"] for r in records if r["kind"] == "finding"] == ["coredns-monitored"]


def json_records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_is_one_object_a_line_and_ends_with_a_summary(faulty: str) -> None:
    records = json_records(run("--from", faulty, "-o", "json"))
    found = next(r for r in records if r["kind"] == "finding")
    assert found["check"] == "service-selector"
    assert found["object"] == {"kind": "Service", "name": "qdrant", "namespace": "chatbot"}
    assert found["evidence"][0]["field"] == "spec.selector"
    assert records[-1]["kind"] == "summary"
    assert records[-1]["findings"] == {"info": 0, "warning": 1, "error": 1}


def test_yaml_holds_the_whole_report(faulty: str) -> None:
    report = yaml.safe_load(run("--from", faulty, "-o", "yaml").stdout)
    assert [f["check"] for f in report["findings"]] == ["service-selector", "coredns-monitored"]
    assert {w["stack"] for w in report["workloads"]} == {"", "vLLM", "Qdrant"}


def test_sarif_names_rules_levels_and_places(faulty: str) -> None:
    run_ = json.loads(run("--from", faulty, "-o", "sarif", "--ignore", "coredns-monitored").stdout)["runs"][0]
    found, accepted = run_["results"]
    assert (found["ruleId"], found["level"]) == ("service-selector", "error")
    assert run_["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] == "service-selector"
    place = found["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]
    assert place == "Service/chatbot/qdrant:spec.selector"
    assert accepted["suppressions"] == [{"kind": "external", "justification": "--ignore coredns-monitored"}]
    assert any("no agent told" in n["message"]["text"] for n in run_["invocations"][0]["toolExecutionNotifications"])


def test_sarif_points_at_the_line_of_the_object_by_a_uri(tmp_path: Path) -> None:
    folder = tmp_path / "all of it"
    folder.mkdir()
    (folder / "ключ #1.yaml").write_text(
        "# a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n\napiVersion: apps/v1\n"
        "kind: Deployment\nmetadata: {name: m, namespace: a}\nspec:\n  template:\n    metadata: {labels: {app: m}}\n"
        "    spec: {containers: [{name: m, image: 'vllm/vllm-openai:v0.9.2'}]}\n"
    )
    run_ = json.loads(run("--manifests", str(folder), "-o", "sarif").stdout)["runs"][0]
    found = next(r for r in run_["results"] if r["ruleId"] == "readiness-probe")
    place = found["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 8}
    assert place["artifactLocation"]["uri"].endswith("/all%20of%20it/%D0%BA%D0%BB%D1%8E%D1%87%20%231.yaml")


def test_only_takes_a_check_or_an_area(faulty: str) -> None:
    checks = {
        r["check"]
        for r in json_records(run("--from", faulty, "-o", "json", "--only", "ndots", "--only", "nlb"))
        if r["kind"] == "check"
    }
    assert "ndots" in checks
    assert "nlb-idle-timeout" in checks
    assert "service-selector" not in checks
    with pytest.raises(InputError, match="service-selectr"):
        run("--from", faulty, "--only", "service-selectr")


@pytest.mark.parametrize(
    ("ignore", "accepted"),
    [
        ("service-selector", True),
        ("service-selector:qdrant", True),
        ("service-selector:chatbot/qdrant", True),
        ("service-selector:Service/chatbot/q*", True),
        ("service-selector:other/qdrant", False),
        ("service-target-port:qdrant", False),
    ],
)
def test_ignore_accepts_by_check_and_object(faulty: str, ignore: str, accepted: bool) -> None:
    records = json_records(run("--from", faulty, "-o", "json", "--ignore", ignore))
    kinds = [r["kind"] for r in records if r.get("check") == "service-selector" or "finding" in r]
    assert ("accepted" in kinds) is accepted


def test_ignoring_an_unknown_check_names_the_near_ones(faulty: str) -> None:
    with pytest.raises(InputError) as caught:
        run("--from", faulty, "--ignore", "service-selectors")
    assert "service-selector" in caught.value.hint


def test_a_baseline_accepts_what_was_found_and_nothing_new(faulty: str, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    assert run("--from", faulty, "--write-baseline", str(baseline)).return_value == 1
    assert run("--from", faulty, "--baseline", str(baseline)).return_value == 0
    world = eks()
    world.get("Service", "rag-app")["spec"]["selector"] = {"app.kubernetes.io/name": "rag"}
    other = recorded(world, tmp_path / "other.bundle")
    assert run("--from", other, "--baseline", str(baseline)).return_value == 1


def test_a_broken_baseline_names_the_file(faulty: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"schema": 1, "accepted": [{"object": 3}]}')
    with pytest.raises(InputError, match=r"b\.json: not a baseline"):
        run("--from", faulty, "--baseline", str(tmp_path / "b.json"))
    with pytest.raises(GenainetError, match="can't read the baseline"):
        run("--from", faulty, "--baseline", str(tmp_path / "none.json"))


def test_what_could_not_be_read_is_not_checked_and_not_passed(tmp_path: Path) -> None:
    world = eks()
    world.left_out.append(LeftOut("EndpointSlice", "endpointslices is forbidden"))
    records = json_records(run("--from", recorded(world, tmp_path / "b"), "-o", "json"))
    checks = {r["check"]: r for r in records if r["kind"] == "check"}
    assert checks["service-endpoints"]["outcome"] == "not-checked"
    assert checks["service-endpoints"]["reasons"] == ["EndpointSlice could not be read: endpointslices is forbidden"]
    assert checks["mtu-mismatch"]["outcome"] == "not-checked"
    assert checks["service-selector"]["outcome"] == "passed"
    assert checks["mesh-strict"]["outcome"] == "not-applicable"


def test_an_object_that_cannot_be_decoded_is_not_checked(tmp_path: Path) -> None:
    world = eks()
    world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"][0]["ports"][0]["port"] = {"a": 1}
    records = json_records(run("--from", recorded(world, tmp_path / "b"), "-o", "json"))
    checks = {r["check"]: r for r in records if r["kind"] == "check"}
    assert checks["policy-blocks-call"]["outcome"] == "not-checked"
    assert "qdrant-ingress-policy" in checks["policy-blocks-call"]["reasons"][0]
    assert checks["service-endpoints"]["outcome"] == "passed"


def test_a_namespace_limits_what_is_judged(faulty: str) -> None:
    records = json_records(run("--from", faulty, "-n", "kube-system", "-o", "json"))
    assert [r["check"] for r in records if r["kind"] == "finding"] == ["coredns-monitored"]
    assert not [r for r in records if r["kind"] == "workload"]


def test_workload_overrides_what_is_recognised(faulty: str) -> None:
    records = json_records(run("--from", faulty, "-o", "json", "--workload", "deploy/rag-app=vector-database"))
    workloads = [r for r in records if r["kind"] == "workload"]
    assert [(w["object"]["name"], w["role"], w["why"]) for w in workloads] == [
        ("rag-app", "vector-database", ["--workload"])
    ]
    with pytest.raises(InputError, match="there is no role 'database'"):
        run("--from", faulty, "--workload", "deploy/rag-app=database")


def test_the_table_shows_evidence_and_whole_commands(faulty: str) -> None:
    shown = run("--from", faulty).stdout
    assert "ERROR   Service chatbot/qdrant: its selector matches no pod" in shown
    assert "observed spec.selector: no pod in chatbot has app.kubernetes.io/name=qdrnt" in shown
    (command,) = [line for line in shown.splitlines() if "kubectl -n chatbot patch service qdrant" in line]
    assert command.endswith("""-p '{"spec": {"selector": {"app.kubernetes.io/name": "qdrant"}}}'""")
    assert "Not checked" in shown
    assert "1 error, 1 warning, 0 info." in shown


def test_list_and_explain_print_the_checks() -> None:
    listed = run("--list").stdout
    assert all(f"{c.name} " in listed for c in all_checks())
    explained = run("--explain", "nlb-idle-timeout").stdout
    assert "tcp.idle_timeout.seconds" in explained and "Source: https://docs.aws.amazon.com" in explained
    with pytest.raises(InputError, match="no check 'nlb-idle'"):
        run("--explain", "nlb-idle")


MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: model, namespace: chat, annotations: {service.beta.kubernetes.io/aws-load-balancer-type: external}}
spec:
  type: LoadBalancer
  selector: {app: model}
  ports: [{port: 80, targetPort: api}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: model, namespace: chat}
spec:
  selector: {matchLabels: {app: model}}
  template:
    metadata: {labels: {app: model}}
    spec:
      containers:
      - {name: vllm, image: "vllm/vllm-openai:v0.8.4", ports: [{name: http, containerPort: 8000}]}
"""


def test_manifests_are_judged_before_they_are_applied(tmp_path: Path) -> None:
    pytest.importorskip("kubectl_genainet.kube.manifests")
    file = tmp_path / "model.yaml"
    file.write_text(MANIFEST)
    records = json_records(run("--manifests", str(file), "-o", "json"))
    found = {r["check"]: r for r in records if r["kind"] == "finding"}
    assert {"service-target-port", "readiness-probe", "nlb-target-type", "nlb-idle-timeout"} <= found.keys()
    assert {e["certainty"] for f in found.values() for e in f["evidence"]} == {"assumed"}
    assert "load-balancer-pending" not in found
    checks = {r["check"]: r for r in records if r["kind"] == "check"}
    assert checks["service-endpoints"]["reasons"] == ["the manifests hold no EndpointSlice"]
    place = json.loads(run("--manifests", str(file), "-o", "sarif").stdout)["runs"][0]["results"][0]["locations"][0]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == str(file)


def test_a_time_to_measure_is_a_duration_of_up_to_ten_minutes(sound: str) -> None:
    for wrong in ("soon", "11m", "-5s"):
        with pytest.raises(click.BadParameter):
            run("--from", sound, "--measure", wrong)
    assert run("--from", sound, "--measure", "1m").return_value == 0


def test_names_that_do_not_exist_are_an_error_with_near_matches(faulty: str) -> None:
    with pytest.raises(InputError, match="no namespace 'chatbt'") as wrong:
        run("--from", faulty, "-n", "chatbt")
    assert "chatbot" in wrong.value.hint
    with pytest.raises(InputError, match="no workload 'rag'") as missing:
        run("--from", faulty, "--workload", "deploy/rag")
    assert "rag-app" in missing.value.hint


def test_no_object_at_all_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("---\n# nothing yet\n")
    with pytest.raises(InputError, match="there is no Kubernetes object in"):
        run("--manifests", str(tmp_path))


def test_a_folder_without_objects_is_named_with_why_each_kind_of_file_was_left_out(tmp_path: Path) -> None:
    files = {
        "a.yaml": "replicas: 1",
        "deep/b.json": '{"b": 2}',
        "c.yml": "# nothing yet",
        "d.yaml": "a: [",
        "e.yaml": "x: {a: {{ .b }}}",
        "chart/Chart.yaml": "name: c",
        "chart/values.yaml": "v: 1",
        "README.md": "not looked at",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        run("--manifests", str(tmp_path))
    begin, _, reasons = error.value.message.partition(" looked at, ")
    assert begin == f"there is no Kubernetes object in {tmp_path}: 7 files"
    assert reasons.split("; ") == [
        "2 not a Kubernetes object: it has no apiVersion and kind (a.yaml, deep/b.json)",
        "1 empty, or comments only (c.yml)",
        "2 part of a Helm chart, which is not rendered (chart/Chart.yaml, chart/values.yaml)",
        "2 not YAML (d.yaml, e.yaml)",
    ]
    assert f"helm template RELEASE {tmp_path / 'chart'}" in error.value.hint


def test_a_template_is_told_from_broken_yaml(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("apiVersion: v1\nspec: {port: {{ .Values.port }}}\n")
    with pytest.raises(InputError) as error:
        run("--manifests", str(tmp_path / "service.yaml"))
    assert error.value.hint.startswith("It looks like a template: `helm template")


def test_explain_wraps_to_the_terminal_and_not_where_the_source_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("--explain", "service-listener").stdout.splitlines()
    looks = lines[lines.index(next(line for line in lines if line.startswith("Looks"))) :]
    paragraph = looks[: looks.index("")]
    assert all(40 <= len(line) <= 60 for line in paragraph[:-1])
