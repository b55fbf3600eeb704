"""The recorder as `deploy --record` applies it: what daemonset/record adds to the base."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.units import quantity, seconds

Object = dict[str, Any]

OBJECTS = "genainet-objects"  # name of the Deployment, and its pod's app.kubernetes.io/name
OBJECTS_PORT = 9914
HISTORY_CAPABILITY = "genainet-history"  # name of the Secret that recorders and their readers share
LEAST_SIZE = 8 << 20
_OBJECTS = ("rbac.yaml", "networkpolicy.yaml", "deployment.yaml")


class RecordChoices(msgspec.Struct, frozen=True):
    """What the recording of a node may take, how far back it reaches, and whether it has the names that are looked up."""

    size: str = "256Mi"
    reach: str = "24h"
    dns: bool = True


def check_record(choices: RecordChoices) -> None:
    """Raises InputError for a size or a time that is none."""
    if quantity(choices.size) < LEAST_SIZE:
        raise InputError(f"{choices.size!r} is not a size of at least 8Mi", field="--record-size")
    reach = seconds(choices.reach)
    if reach is None or reach < 60:
        raise InputError(f"{choices.reach!r} is not a time of at least 1m", field="--record-for")


def _text(name: str) -> str:
    return (asset_dir("daemonset") / "record" / name).read_text()


def record_objects() -> list[Object]:
    return [obj for name in _OBJECTS for obj in yaml.safe_load_all(_text(name))]


def enable_record(template: Object, choices: RecordChoices) -> None:
    """Does to the DaemonSet's template what daemonset/record/daemonset-patch.yaml does in kustomize."""
    chosen = {
        "--record-size": choices.size,
        "--record-for": choices.reach,
        "--record-dns": "on" if choices.dns else "off",
    }
    for step in yaml.safe_load(_text("daemonset-patch.yaml")):
        *way, last = step["path"].removeprefix("/spec/template/").split("/")
        place: Any = template
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if step["op"] != "add" or last != "-":
            raise ValueError(f"{step['path']}: only additions to lists are known")
        value = step["value"]
        if isinstance(value, str):
            name = value.partition("=")[0]
            value = f"{name}={chosen[name]}" if name in chosen else value
        place.append(value)
