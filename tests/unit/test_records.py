"""What `-o json` prints is what docs/schema.json says: no field more, no field less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

import kubectl_genainet
from kubectl_genainet.assets import recordings
from kubectl_genainet.cli import cli
from kubectl_genainet.lab import state
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.lab.state import LabFolder, LabRecord
from kubectl_genainet.records import RECORDS, schema, schema_text
from tests.unit.commands.fake_api import fake_api

ROOT = Path(kubectl_genainet.__file__).parents[1]
BUNDLES = ROOT / "tests" / "golden" / "bundles"
APP = str(Path(kubectl_genainet.__file__).parent / "lab" / "manifests" / "app")
RECORDED = str(recordings() / "policy-service-port.gnb")
POLICY = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, spec: {podSelector: {}}}"
COMMANDS: dict[str, tuple[str, ...]] = {
    "trace": ("trace", "svc/my-llama-svc", "--from", RECORDED),
    "drops": ("drops", "svc/my-llama-svc", "--from", str(BUNDLES / "drops-policy-drop.gnb")),
    "diagnose": ("diagnose", "svc/my-llama-svc", "--from", RECORDED),
    "timeline": ("timeline", "svc/my-llama-svc", "--from", RECORDED),
    "dns": ("dns", "--from", str(BUNDLES / "dns-timeout.gnb")),
    "explain": ("explain", "deploy/rag-app", "svc/my-llama-svc", "--manifests", APP),
    "explain --flows": ("explain", "--manifests", APP, "--flows", "FLOWS"),
    "matrix": ("matrix", "--manifests", APP),
    "matrix --diff": ("matrix", "--manifests", APP, "--diff", "POLICIES"),
    "rules": ("rules", "svc/my-llama-svc", "--from", str(BUNDLES / "stale-endpoint.gnb")),
    "doctor": ("doctor", "--from", RECORDED),
    "version": ("version", "--client"),
}


def lines(command: str, folder: Path) -> list[dict[str, Any]]:
    (folder / "flows.json").write_text('{"from": "default/rag-app-0", "to": "8.8.8.8", "port": 443}\n')
    (folder / "policies").mkdir()
    (folder / "policies" / "x.yaml").write_text(POLICY)
    files = {"FLOWS": str(folder / "flows.json"), "POLICIES": str(folder / "policies")}
    arguments = [files.get(word, word) for word in COMMANDS[command]]
    done = CliRunner().invoke(cli, [*arguments, "-o", "json"], standalone_mode=False)
    assert done.exception is None, done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def read_back(command: str, value: dict[str, Any]) -> dict[str, Any]:
    for record in RECORDS[command]:
        try:
            return json.loads(msgspec.json.encode(record.roundtrip(value)))  # type: ignore[no-any-return]
        except msgspec.ValidationError:
            continue
    raise AssertionError(f"{command} printed a record of no documented type: {value}")


@pytest.fixture
def a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is written down of a lab, without one: its pods are there, its processes are not."""
    monkeypatch.setattr(state, "ROOT", tmp_path / "labs")
    folder = LabFolder("paper")
    folder.write(
        LabRecord(id="1", spec=LabSpec(name="paper"), up=True, nodes={"node-1": ""}, pids={"agent": 2**22 + 1})
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "b"},
        "status": {"podIP": "10.0.0.1"},
    }
    folder.write_objects([pod])
    return "paper"


@pytest.mark.parametrize("command", ["lab status", "lab list"])
def test_a_lab_is_of_its_documented_type(command: str, a_lab: str) -> None:
    name = ["--name", a_lab] if command == "lab status" else []
    done = CliRunner().invoke(cli, [*command.split(), *name, "-o", "json"])
    (value,) = map(json.loads, done.stdout.splitlines())
    assert read_back(command, value) == value
    assert (value["state"], value["pods"][0]["ips"]) == ("degraded", ["10.0.0.1"])


def test_an_agent_is_of_its_documented_type(tmp_path: Path) -> None:
    with fake_api(tmp_path) as (api, kubeconfig):
        CliRunner().invoke(
            cli, ["deploy", "--image", "registry.example/agent:1", "--no-wait", "--kubeconfig", kubeconfig]
        )
        api.put("/api/v1/nodes/node-1", {"kind": "Node", "metadata": {"name": "node-1"}})
        done = CliRunner().invoke(cli, ["status", "-o", "json", "--kubeconfig", kubeconfig])
    (value,) = map(json.loads, done.stdout.splitlines())
    assert read_back("status", value) == value and value["state"] == "none"


def test_every_record_that_a_command_prints_is_tested_here() -> None:
    # The lab's tests read them; the flows are in tests/unit/proxy, fabric in tests/unit/fabric.
    elsewhere = {"rules --exact", "rules --flows", "fabric"}
    assert set(RECORDS) - elsewhere == {*COMMANDS, "status", "lab status", "lab list"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_line_is_of_a_documented_type_and_loses_nothing_in_it(command: str, tmp_path: Path) -> None:
    printed = lines(command, tmp_path)
    assert printed
    for value in printed:
        assert read_back(command, value) == value


def test_docs_have_the_schema_of_these_types() -> None:
    made = "python -m kubectl_genainet.records > docs/schema.json"
    assert (ROOT / "docs" / "schema.json").read_text() == schema_text(), f"make it anew: {made}"


def test_every_command_with_json_is_in_the_schema() -> None:
    verbs = {command.split()[0] for command in RECORDS}
    assert verbs >= {"trace", "drops", "dns", "explain", "matrix", "rules", "doctor", "status", "version", "lab"}
    assert set(schema()["properties"]) == set(RECORDS)


def test_references_of_the_schema_lead_somewhere() -> None:
    text = schema_text()
    named = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert named <= set(schema()["$defs"])
