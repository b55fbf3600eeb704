"""The Helm chart renders to the kustomize base. With helm where it is installed; else by what its templates use of Go's."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_genainet.kube.agents.record import RecordChoices, enable_record, record_objects
from scripts.chart import ROOT, TEMPLATES, templates

CHART = ROOT / "chart"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def value_of(values: dict[str, Any], path: str) -> Any:
    """The value at "a.b"."""
    return functools.reduce(lambda value, name: value[name], path.split("."), values)


def rendered_here(values: dict[str, Any], namespace: str) -> str:
    """`{{ .Values.x.y }}`, `{{ .Release.Namespace }}`, `{{- toYaml .Values.x | nindent N }}` and `if`, not nested."""
    parts = []
    for name, text in templates().items():
        if not name.endswith(".yaml"):
            continue
        text = re.sub(
            r"\s*\{\{- if \.Values\.([\w.]+) \}\}(.*?)\s*\{\{- end \}\}",
            lambda m: m[2] if value_of(values, m[1]) else "",
            text,
            flags=re.S,
        )
        text = re.sub(
            r"\s*\{\{- toYaml \.Values\.(\w+) \| nindent (\d+) \}\}",
            lambda m: "".join("\n" + " " * int(m[2]) + line for line in yaml.safe_dump(values[m[1]]).splitlines()),
            text,
        )
        text = text.replace("{{ .Release.Namespace }}", namespace)
        text = re.sub(r"\{\{ \.Values\.([\w.]+) \}\}", lambda m: str(value_of(values, m[1])), text)
        assert "{{" not in text, text
        parts.append(text)
    return "\n---\n".join(parts)


def rendered_by_helm(values: dict[str, Any], namespace: str) -> str:
    command = ["helm", "template", "genainet", str(CHART), "-n", namespace, "-f", "-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


RENDERERS = [rendered_here, *([rendered_by_helm] if shutil.which("helm") else [])]


def objects(text: str) -> list[dict[str, Any]]:
    return sorted((obj for obj in yaml.safe_load_all(text) if obj), key=lambda o: (o["kind"], o["metadata"]["name"]))


def base() -> list[dict[str, Any]]:
    files = sorted(p for p in (ROOT / "manifests").glob("*.yaml") if p.name != "kustomization.yaml")
    return objects("\n---\n".join(p.read_text() for p in files))


@pytest.mark.parametrize("render", RENDERERS)
def test_the_chart_renders_to_the_base(render: Any) -> None:
    assert objects(render(VALUES, "genainet")) == base()


@pytest.mark.parametrize("render", RENDERERS)
def test_the_chart_records_as_the_kustomize_component_does(render: Any) -> None:
    values = VALUES | {"record": {"enabled": True, "size": "1Gi", "for": "48h", "dns": "off"}}
    wanted = base()
    daemonset = next(o for o in wanted if o["kind"] == "DaemonSet")
    enable_record(daemonset["spec"]["template"], RecordChoices("1Gi", "48h", dns=False))
    wanted += record_objects()
    assert objects(render(values, "genainet")) == sorted(wanted, key=lambda o: (o["kind"], o["metadata"]["name"]))


@pytest.mark.parametrize("render", RENDERERS)
def test_values_arrive_where_they_belong(render: Any) -> None:
    values = VALUES | {"image": "registry.example/a@sha256:12", "tolerations": [], "createNamespace": False}
    found = objects(render(values, "net"))
    assert not [o for o in found if o["kind"] == "Namespace"]
    (daemonset,) = [o for o in found if o["kind"] == "DaemonSet"]
    spec = daemonset["spec"]["template"]["spec"]
    assert daemonset["metadata"]["namespace"] == "net" and not spec["tolerations"]
    assert spec["containers"][0]["image"] == "registry.example/a@sha256:12"


def test_the_templates_are_those_that_the_base_gives() -> None:
    written = {path.name: path.read_text() for path in TEMPLATES.iterdir()}
    assert written == templates(), "python -m scripts.chart"


def test_the_schema_names_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["required"]) == set(VALUES) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_client_and_chart_have_one_version() -> None:
    from kubectl_genainet import __version__

    chart = yaml.safe_load((Path(CHART) / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
