"""A lab that is up, for a command that changes it: what is meant is written first, then done."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.api.endpoints import selects, with_endpoint_slices
from kubectl_genainet.lab.api.objects import Object, key
from kubectl_genainet.lab.cluster import check_machine, pod_wire, wires
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.datapath.rules import load_rules
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.state import ExtraRule, LabFolder, LabRecord, Memo, locked

APP = "app.kubernetes.io/name"


class Lab:
    """The objects and the record of one lab, and the ways to change them."""

    def __init__(self, folder: LabFolder) -> None:
        self.folder = folder
        self.record: LabRecord = folder.read()
        if not self.record.up:
            raise GenainetError(
                f"the lab {folder.name!r} is not whole: its `lab up` did not finish",
                f"Remove what is left of it: kubectl genainet lab down --lab {folder.name}",
            )
        self.objects: list[Object] = folder.read_objects()

    # --- objects ----------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str, namespace: str = "default") -> Object:
        for obj in self.objects:
            if key(obj) == (kind, namespace, name):
                return obj
        raise GenainetError(
            f"the lab {self.folder.name!r} has no {kind} {namespace}/{name}",
            "Incidents are made for the application that the tool ships: bring up a lab without --manifests.",
        )

    def pods_of(self, app: str, label: str = APP) -> list[Object]:
        """The pods of an application, by node and name."""
        selected = [p for p in programs.pods_in(self.objects) if selects(p["metadata"].get("labels", {}), {label: app})]
        if not selected:
            raise GenainetError(
                f"the lab {self.folder.name!r} has no pod of {app}",
                "Incidents are made for the application that the tool ships: bring up a lab without --manifests.",
            )
        return sorted(selected, key=lambda p: (p["spec"]["nodeName"], p["metadata"]["name"]))

    def edit(self, obj: Object, memo: Memo) -> Object:
        """The object, to be changed in place; as it was, it goes into the memo."""
        for name, other in self.record.incidents.items():
            if other is not memo and key(obj) in (key(o) for o in (*other.replaced, *other.added)):
                raise GenainetError(
                    f"the incident {name} has changed {obj['kind']} {obj['metadata']['name']} already",
                    f"Clear it first: kubectl genainet lab incident {name} --clear",
                )
        memo.replaced.append(copy.deepcopy(obj))
        return obj

    def add(self, obj: Object, memo: Memo) -> None:
        memo.added.append(obj)
        self.objects.append(obj)

    def restore_objects(self, memo: Memo) -> None:
        """Puts the memo's objects back as they were, and takes away those that it added."""
        added = {key(o) for o in memo.added}
        replaced = {key(o): o for o in memo.replaced}
        kept = [replaced.pop(key(o), o) for o in self.objects if key(o) not in added]
        self.objects = [*kept, *replaced.values()]

    # --- rules ------------------------------------------------------------------------------------------------------

    def add_rule(self, rule: ExtraRule) -> None:
        self.record.extra_rules.append(rule)

    def drop_rules(self, incident: str) -> None:
        self.record.extra_rules = [r for r in self.record.extra_rules if r.incident != incident]

    @property
    def _held_path(self) -> Path:
        return self.folder.path / "objects.held.json"

    def hold_proxies(self, nodes: list[str]) -> None:
        """Has the nodes' kube-proxy keep to the objects as they are now."""
        self._held_path.write_bytes(msgspec.json.encode(self.objects))
        self.record.lagging = nodes

    def release_proxies(self) -> None:
        self.record.lagging = []

    # --- pods -------------------------------------------------------------------------------------------------------

    def remove_pod(self, pod: Object) -> None:
        """Ends a pod: its servers, its network namespace, its object."""
        self.objects = [o for o in self.objects if key(o) != key(pod)]
        wire = pod_wire(self.record, pod)
        name = self.record.pods.pop(programs.member_key(pod))
        self.sync()
        with wires(self.record) as wired:
            wired.remove_pod(wire)
        netns.remove(name)

    def restore_pod(self, pod: Object, namespace: str) -> None:
        """Makes a removed pod again, in a network namespace of the same name."""
        if not netns.inode(namespace):
            netns.create([namespace])
        self.record.pods[programs.member_key(pod)] = namespace
        with wires(self.record) as wired:
            wired.make_pod(pod_wire(self.record, pod))

    # --- saving and acting ------------------------------------------------------------------------------------------

    def save(self) -> None:
        self.folder.write_objects(self.objects)
        self.folder.write(self.record)

    def sync(self) -> None:
        """Saves, then brings endpoints, rules, DNS records and the pods' program in line with the objects."""
        self.objects = with_endpoint_slices(self.objects)
        self.save()
        programs.write_configs(self.folder, self.record, self.objects)
        held = msgspec.json.decode(self._held_path.read_bytes()) if self.record.lagging else None
        load_rules(self.record, self.objects, held)
        programs.reload_dns(self.record, self.objects)
        programs.reload_workload(self.folder)


@contextlib.contextmanager
def changing(name: str) -> Iterator[Lab]:
    """The lab, for one command that changes it."""
    check_machine()
    with locked(name) as folder:
        yield Lab(folder)
