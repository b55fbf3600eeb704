"""Helm charts among manifests: a template is no manifest, and what a chart makes is known once it is rendered.

No part of a chart is read, also where a template happens to be YAML: half of an application would be taken for all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.policy import POLICY_KINDS
from kubectl_genainet.shell import sh

_CHART_FILE = "Chart.yaml"
_KIND = re.compile(r"^[ \t-]*kind:[ \t]*[\"']?(\w+)", re.MULTILINE)
_SUFFIXES = (".yaml", ".yml", ".tpl", ".json")
_MOST_NAMED = 8
_MOST_BYTES = 1 << 20  # of a template, searched for kinds
_POLICY_KINDS = frozenset(kind for _, kind in POLICY_KINDS)


def policy_kinds_in(text: str) -> list[str]:
    """The kinds of policies that a text names which is not read."""
    return sorted(_POLICY_KINDS & set(_KIND.findall(text[:_MOST_BYTES])))


class Charts:
    """The charts below a folder, each with the charts in it."""

    def __init__(self, folder: Path) -> None:
        charts = sorted({file.parent for file in folder.rglob(_CHART_FILE) if file.is_file()})
        self._roots = [c for c in charts if not any(c.is_relative_to(other) for other in charts if other != c)]

    def hold(self, file: Path) -> bool:
        """Whether a file is a part of a chart: its description, its values, a template or a chart in it."""
        return any(_is_part(file.relative_to(root)) for root in self._roots if file.is_relative_to(root))

    def named(self, namespace: str) -> list[str]:
        """What to say of each chart: how to have what it makes."""
        place = f" -n {sh(namespace)}" if namespace else ""
        return [
            f"{root}: a Helm chart is not rendered: what it makes is left out ({_parts_of(root)}). To have it: "
            f"helm template{place} RELEASE {sh(str(root))} | kubectl genainet ... --manifests -"
            for root in self._roots
        ]

    def left_out(self) -> Iterator[LeftOut]:
        """The kinds of policies that the charts' templates name."""
        for root in self._roots:
            for kind in _kinds_in(p for name in ("templates", "charts") for p in sorted((root / name).rglob("*"))):
                yield LeftOut(kind, f"the Helm chart {root} is not rendered", partly=True)


def _parts_of(root: Path) -> str:
    """The files of a chart that are not read."""
    names = [p.relative_to(root) for p in sorted(root.rglob("*")) if p.suffix in _SUFFIXES and p.is_file()]
    parts = [str(name) for name in names if _is_part(name)]
    more = len(parts) - _MOST_NAMED
    return ", ".join(parts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_part(path: Path) -> bool:
    return (
        path.parts[0] in ("templates", "charts")
        or path.name in (_CHART_FILE, "Chart.lock", "requirements.yaml")
        or (len(path.parts) == 1 and path.name.startswith("values"))
    )


def _kinds_in(files: Iterable[Path]) -> list[str]:
    kinds: set[str] = set()
    for file in files:
        if file.suffix in _SUFFIXES and file.is_file():
            with file.open(encoding="utf-8", errors="replace") as opened:
                kinds.update(policy_kinds_in(opened.read(_MOST_BYTES)))
    return sorted(kinds)
