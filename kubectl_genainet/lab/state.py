"""What is known of the labs of this machine: a folder each below /run/genainet/lab, every file replaced atomically.

`lab.json` says what was made (or is about to be made: it is written first), `objects.json` is the lab's "API server".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.spec import LabSpec, check_name
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject

ROOT = Path(os.environ.get("GENAINET_LAB_STATE", "/run/genainet/lab"))


class ExtraRule(msgspec.Struct, frozen=True, kw_only=True):
    """An iptables rule that an incident put on a node, before the chain's other rules."""

    incident: str
    node: str
    table: str
    chain: str
    rule: str
    family: str = "IPv4"


class Memo(msgspec.Struct, kw_only=True):
    """What an incident changed, written before it acts, for its `--clear`."""

    replaced: list[dict[str, Any]] = []  # objects as they were
    added: list[dict[str, Any]] = []  # objects that were not there
    behaviours: dict[str, dict[str, Any]] = {}  # of pods' programs, by "namespace/name"
    notes: dict[str, Any] = {}  # whatever else the incident needs


class LabRecord(msgspec.Struct, kw_only=True):
    """All that `lab down` must know. `pods` maps "namespace/name" to the name of the pod's network namespace."""

    id: str  # marks the lab's processes, in the environment variable that processes.py names
    spec: LabSpec
    up: bool = False
    netns: list[str] = []
    nodes: dict[str, str] = {}
    pods: dict[str, str] = {}
    agents: dict[str, str] = {}
    objects: str = ""  # socket of the recorder of its objects
    pids: dict[str, int] = {}
    incidents: dict[str, Memo] = {}
    extra_rules: list[ExtraRule] = []
    lagging: list[str] = []  # nodes whose kube-proxy does not follow changes
    upstream_delay_ms: int = 0

    def behaviour(self, pod: str) -> dict[str, Any]:
        """How the program of the pod "namespace/name" misbehaves; workload.Member says what there is."""
        return {k: v for memo in self.incidents.values() for k, v in memo.behaviours.get(pod, {}).items()}


class LabFolder:
    """The files of one lab."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.path = ROOT / name

    @property
    def record_path(self) -> Path:
        return self.path / "lab.json"

    @property
    def objects_path(self) -> Path:
        return self.path / "objects.json"

    def exists(self) -> bool:
        return self.record_path.exists()

    def read(self) -> LabRecord:
        """The lab's record; raises GenainetError where there is no lab of this name."""
        try:
            return msgspec.json.decode(self.record_path.read_bytes(), type=LabRecord)
        except FileNotFoundError:
            raise no_such_lab(self.name) from None
        except msgspec.MsgspecError as error:
            raise GenainetError(f"{self.record_path} is damaged: {error}") from None

    def write(self, record: LabRecord) -> None:
        replace_file(self.record_path, msgspec.json.encode(record))

    def read_objects(self) -> list[dict[str, Any]]:
        objects: list[dict[str, Any]] = msgspec.json.decode(self.objects_path.read_bytes())
        return objects

    def write_objects(self, objects: list[dict[str, Any]]) -> None:
        replace_file(self.objects_path, msgspec.json.encode(objects))


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextlib.contextmanager
def locked(name: str, *, create: bool = False) -> Iterator[LabFolder]:
    """The lab's folder, for one command at a time; the lock goes with the process that holds it.

    Raises GenainetError where another command holds it, and, unless it is to be created, where there is no such lab.
    """
    folder = LabFolder(name)
    if create:
        folder.path.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise no_such_lab(name) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not create and not folder.exists():
            raise no_such_lab(name)
        yield folder
    except BlockingIOError:
        raise GenainetError(f"another command is changing the lab {name!r}", "Wait for it, then try again.") from None
    finally:
        os.close(lock)
        for path in (folder.path, ROOT, ROOT.parent):  # what is empty is of no use
            with contextlib.suppress(OSError):
                path.rmdir()


def lab_names() -> list[str]:
    """Names of the labs of this machine, whole or not."""
    return sorted(p.parent.name for p in ROOT.glob("*/lab.json"))


def no_such_lab(name: str) -> GenainetError:
    known = lab_names()
    if known:
        return GenainetError(f"there is no lab {name!r}", f"Up are: {', '.join(known)}.")
    option = "" if name == "default" else f" --lab {name}"
    return GenainetError(f"there is no lab {name!r}", f"No lab is up. This makes one: kubectl genainet lab up{option}")


def _whole(name: str) -> tuple[LabFolder, LabRecord]:
    folder = LabFolder(name)
    record = folder.read()
    if not record.up:
        raise GenainetError(
            f"the lab {name!r} is not (or no longer) whole: its `lab up` did not finish",
            f"Remove what is left of it: kubectl genainet lab down --lab {name}",
        )
    return folder, record


def lab_record(name: str) -> LabRecord:
    """The record of a lab that is up; raises GenainetError that names those that are."""
    return _whole(name)[1]


def lab_snapshot(name: str) -> ClusterSnapshot:
    """The lab's API objects as they are now; raises GenainetError where no such lab is up."""
    folder, _ = _whole(name)
    objects = tuple(KubeObject(raw=o) for o in folder.read_objects())
    return ClusterSnapshot(objects, taken_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def lab_agents(name: str) -> dict[str, str]:
    """Node name -> path of the unix socket of its agent; raises GenainetError where no such lab is up."""
    return dict(lab_record(name).agents)


def lab_objects_recorder(name: str) -> str:
    """Path of the socket of the recorder of the lab's objects, "" where it has none."""
    return lab_record(name).objects
