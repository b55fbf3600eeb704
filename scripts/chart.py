"""The Helm chart's templates, made from the kustomize base and daemonset/record: python -m scripts.chart writes
daemonset/chart/templates.

A test compares what the chart renders to with the base, and the templates with what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1] / "daemonset"
TEMPLATES = ROOT / "chart" / "templates"
_NOTES = """The agents need what they and their callers share:

  kubectl -n {{ .Release.Namespace }} create secret generic genainet-trace --from-literal=token="$(openssl rand -hex 32)"
{{- if .Values.record.enabled }}
  kubectl -n {{ .Release.Namespace }} create secret generic genainet-history --from-literal=token="$(openssl rand -hex 32)"
{{- end }}

Then: kubectl genainet status{{ if ne .Release.Namespace "genainet" }} -n {{ .Release.Namespace }}{{ end }}
"""


def _block(name: str, text: str, key: str, indent: int) -> str:
    """The value of `key` in `text`, with all below it, replaced by the chart's value `name`."""
    pattern = rf"(?m)^ {{{indent}}}{key}:(?:.*\n)(?: {{{indent + 1},}}.*\n)*"
    replaced, count = re.subn(
        pattern,
        f"{' ' * indent}{key}:\n{' ' * (indent + 2)}{{{{- toYaml .Values.{name} | nindent {indent + 2} }}}}\n",
        text,
    )
    if count != 1:
        raise ValueError(f"{key} is {count} times in the DaemonSet")
    return replaced


_RECORDED = {"--record-size": "size", "--record-for": "for", "--record-dns": "dns"}  # arguments that are values


def _if_recording(text: str) -> str:
    return f"{{{{- if .Values.record.enabled }}}}{text}{{{{- end }}}}"


def _argument(text: str) -> str:
    name = text.partition("=")[0]
    return f'"{name}={{{{ .Values.record.{_RECORDED[name]} }}}}"' if name in _RECORDED else f'"{text}"'


def _recording(daemonset: str) -> str:
    """The DaemonSet's template with what daemonset/record adds to it, where the values ask for it."""
    added: dict[str, list[Any]] = {}
    for step in yaml.safe_load((ROOT / "record" / "daemonset-patch.yaml").read_text(encoding="utf-8")):
        added.setdefault(step["path"].rpartition("/")[0].rpartition("/")[2], []).append(step["value"])
    arguments = "".join(f", {_argument(text)}" for text in added.pop("args"))
    daemonset = re.sub(r"(?m)^( +args: \[.*)\]$", lambda m: m[1] + _if_recording(arguments) + "]", daemonset)
    for key, values in added.items():
        pattern = re.compile(rf"(?m)^( +){key}:\n((?:\1 +.*\n)+)")
        found = pattern.search(daemonset)
        if found is None:
            raise ValueError(f"the DaemonSet has no {key}")
        more = _if_recording(_items(values, f"{found[1]}  "))
        daemonset = f"{daemonset[: found.end()]}{more}\n{daemonset[found.end() :]}"
    return daemonset


def _items(values: list[Any], indent: str) -> str:
    flow = [yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).strip() for value in values]
    return "\n" + "".join(f"{indent}- {text}\n" for text in flow)


def template_of(name: str, text: str) -> str:
    """One file of the base as a template."""
    text = re.sub(r"(?m)^( +namespace:) genainet$", r"\1 {{ .Release.Namespace }}", text)
    if name == "namespace.yaml":
        text = text.replace("name: genainet\n", "name: {{ .Release.Namespace }}\n", 1)
        return f"{{{{- if .Values.createNamespace }}}}\n{text}{{{{- end }}}}\n"
    text = text.replace("image: localhost/kubectl-genainet-agent", "image: {{ .Values.image }}")
    text = text.replace("imagePullPolicy: IfNotPresent", "imagePullPolicy: {{ .Values.imagePullPolicy }}")
    if name == "daemonset.yaml":
        for key, indent in (("nodeSelector", 6), ("tolerations", 6), ("resources", 10)):
            text = _block(key, text, key, indent)
        return _recording(text)
    return text


def templates() -> dict[str, str]:
    """File name -> text, of all templates."""
    base = sorted((ROOT / "manifests").glob("*.yaml"))
    made = {p.name: template_of(p.name, p.read_text(encoding="utf-8")) for p in base if p.name != "kustomization.yaml"}
    record = [ROOT / "record" / f"{name}.yaml" for name in ("deployment", "networkpolicy", "rbac")]
    recorded = {
        f"record-{p.name}": _if_recording(f"\n{template_of(p.name, p.read_text(encoding='utf-8'))}") + "\n"
        for p in record
    }
    return made | recorded | {"NOTES.txt": _NOTES}


if __name__ == "__main__":
    for file, content in templates().items():
        path, base = TEMPLATES / file, ROOT / "manifests" / file
        path.unlink(missing_ok=True)
        if base.is_file() and base.read_text(encoding="utf-8") == content:
            path.symlink_to(Path("../../manifests") / file)
        else:
            path.write_text(content, encoding="utf-8")
