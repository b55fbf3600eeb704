"""Real CustomResourceDefinitions (scripts/crds.sh) of the kinds that the plugin reads, applied by a real kubectl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from kubectl_genainet.kube.resources import KINDS
from tests.cluster.harness.binaries import ROOT
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.processes import run

FOLDER = ROOT / "tests/cluster/crds"
Object = dict[str, Any]


def definitions() -> list[Object]:
    """Of each kind that the plugin reads the real definition, else the one made by hand where there is one."""
    fetched = subprocess.run([ROOT / "scripts/crds.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    read = {(resource.group, resource.plural) for resource in KINDS}
    definitions: dict[tuple[str, str], Object] = {}
    for path in (FOLDER / "unserved.yaml", *sorted(Path(fetched).rglob("*.yaml"))):
        for obj in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if obj and obj.get("kind") == "CustomResourceDefinition":
                kind = obj["spec"]["group"], obj["spec"]["names"]["plural"]
                if kind in read:
                    definitions[kind] = obj
    return list(definitions.values())


class Kubectl:
    """The real kubectl as an administrator of the control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._command = [str(plane.binaries.path("kubectl")), f"--kubeconfig={plane.kubeconfig()}"]

    def apply(self, objects: list[Object] | str) -> None:
        """Server-side, with validation; raises RuntimeError with kubectl's words."""
        text = (
            objects if isinstance(objects, str) else json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )
        run(*self._command, "apply", "--server-side", "-f", "-", stdin=text, timeout=300)

    def wait_for_definitions(self) -> None:
        run(*self._command, "wait", "--for=condition=Established", "crd", "--all", "--timeout=120s", timeout=150)
