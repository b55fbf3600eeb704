"""The Helm chart's templates, made from the kustomize base: python -m scripts.chart writes daemonset/chart/templates.

A test compares what the chart renders to with the base, and the templates with what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1] / "daemonset"
TEMPLATES = ROOT / "chart" / "templates"
_NOTES = """The agents need a Secret that they and their callers share:

  kubectl -n {{ .Release.Namespace }} create secret generic genainet-trace --from-literal=token="$(openssl rand -hex 32)"

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


def template_of(name: str, text: str) -> str:
    """One file of the base as a template."""
    text = re.sub(r"(?m)^( +namespace:) genainet$", r"\1 {{ .Release.Namespace }}", text)
    if name == "namespace.yaml":
        text = text.replace("name: genainet\n", "name: {{ .Release.Namespace }}\n", 1)
        return f"{{{{- if .Values.createNamespace }}}}\n{text}{{{{- end }}}}\n"
    if name == "daemonset.yaml":
        text = text.replace("image: localhost/kubectl-genainet-agent", "image: {{ .Values.image }}")
        text = text.replace("imagePullPolicy: IfNotPresent", "imagePullPolicy: {{ .Values.imagePullPolicy }}")
        for key, indent in (("nodeSelector", 6), ("tolerations", 6), ("resources", 10)):
            text = _block(key, text, key, indent)
    return text


def templates() -> dict[str, str]:
    """File name -> text, of all templates."""
    base = sorted((ROOT / "manifests").glob("*.yaml"))
    made = {p.name: template_of(p.name, p.read_text(encoding="utf-8")) for p in base if p.name != "kustomization.yaml"}
    return made | {"NOTES.txt": _NOTES}


if __name__ == "__main__":
    for file, content in templates().items():
        path, base = TEMPLATES / file, ROOT / "manifests" / file
        path.unlink(missing_ok=True)
        if base.is_file() and base.read_text(encoding="utf-8") == content:
            path.symlink_to(Path("../../manifests") / file)
        else:
            path.write_text(content, encoding="utf-8")
