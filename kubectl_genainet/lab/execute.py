"""Runs a command inside a pod of the lab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.cluster import check_machine
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs import processes
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.state import LabFolder, LabRecord, lab_record, lab_snapshot
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.target import TargetKind, not_found, parse_target, pod_named


def find_pod(snapshot: ClusterSnapshot, text: str, namespace: str = "default") -> Pod:
    """The pod that `text` names: NAME, pod/NAME, or deploy/NAME (its first pod; sts/ and ds/ too)."""
    target = parse_target(text if "/" in text else f"pod/{text}")
    namespace = target.namespace or namespace
    if target.kind is TargetKind.POD:
        return pod_named(snapshot, namespace, target.name)
    if target.kind is not TargetKind.WORKLOAD:
        raise GenainetError(f"{text!r} is not a pod", "Give pod/NAME, NAME or deploy/NAME.")
    here = [p for p in snapshot.pods if p.metadata.namespace == namespace]
    owned = [p for p in here if _workload(snapshot, p) == (target.api_kind, target.name)]
    if not owned:
        known = {name for p in here for kind, name in [_workload(snapshot, p)] if kind == target.api_kind}
        raise not_found(target.api_kind, target.name, known, namespace=namespace)
    return owned[0]


def _workload(snapshot: ClusterSnapshot, pod: Pod) -> tuple[str, str]:
    """Kind and name of the workload that a pod belongs to, through its ReplicaSet."""
    for owner in pod.metadata.owner_references:
        if owner.kind != "ReplicaSet":
            return owner.kind, owner.name
        for replica_set in snapshot.of("ReplicaSet", "apps"):
            if replica_set.name == owner.name and replica_set.namespace == pod.metadata.namespace:
                for above in replica_set.raw["metadata"].get("ownerReferences", ()):
                    return str(above["kind"]), str(above["name"])
        return owner.kind, owner.name
    return "Pod", pod.metadata.name


def execute(lab: str, pod: str, command: tuple[str, ...], namespace: str = "default") -> NoReturn:
    """Becomes the command, in the pod's network namespace and with the pod's /etc/resolv.conf.

    The exit status is the command's own. Raises GenainetError where the pod or the command does not exist.
    """
    check_machine()
    record: LabRecord = lab_record(lab)
    pod_found = find_pod(lab_snapshot(lab), pod, namespace)
    key = f"{pod_found.metadata.namespace}/{pod_found.metadata.name}"
    if pod_found.spec.host_network:
        space, conf = record.nodes[pod_found.spec.node_name], None
    else:
        space, conf = record.pods[key], programs.resolv_path(LabFolder(lab), record.pods[key])
    fd = os.open(netns.RUN_NETNS / space, os.O_RDONLY | os.O_CLOEXEC)
    netns.setns(fd)
    if conf is not None:
        _bind_resolv_conf(conf)
    os.environ[processes.MARK] = record.id
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise GenainetError(f"there is no command {command[0]!r} on this machine") from None
    except OSError as error:
        raise GenainetError(f"{command[0]}: {error.strerror}") from None


def _bind_resolv_conf(conf: Path) -> None:
    """Puts the file over /etc/resolv.conf for this process and its children only."""
    target = Path("/etc/resolv.conf").resolve()
    if not target.exists():
        return
    netns.unshare(netns.CLONE_NEWNS)
    netns.mount("", "/", netns.MS_SLAVE | netns.MS_REC)
    netns.mount(str(conf), str(target), netns.MS_BIND)
