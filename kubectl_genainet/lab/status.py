"""What `lab status` and `lab list` tell."""

from __future__ import annotations

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs import processes
from kubectl_genainet.lab.state import LabFolder, LabRecord, lab_names, lab_snapshot
from kubectl_genainet.model.results.lab import LabPod, LabStatus

ENFORCER = "the lab's own (iptables chains LAB-*), not a product's"


def lab_status(name: str) -> LabStatus:
    """The status of a lab, whole or not; raises GenainetError where there is none of this name."""
    record = LabFolder(name).read()
    problems = tuple(_problems(record)) if record.up else ()
    return LabStatus(
        name=name,
        state="partial" if not record.up else "degraded" if problems else "up",
        nodes=tuple(record.nodes),
        proxy_mode=record.spec.proxy_mode.value,
        overlay=record.spec.overlay.value,
        ip_families=tuple(f.value for f in record.spec.families),
        policy_enforcer=ENFORCER,
        pods=_pods(record) if record.up else (),
        agents=record.agents,
        incidents=tuple(record.incidents),
        problems=problems,
    )


def _pods(record: LabRecord) -> tuple[LabPod, ...]:
    return tuple(
        LabPod(
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            node=pod.spec.node_name,
            ips=pod.ips,
            ready=pod.ready,
            netns=record.pods.get(f"{pod.metadata.namespace}/{pod.metadata.name}", ""),
        )
        for pod in lab_snapshot(record.spec.name).pods
    )


def _problems(record: LabRecord) -> list[str]:
    gone = [f"the process of {role} has ended" for role, pid in record.pids.items() if not processes.alive(pid)]
    return gone + [f"the network namespace {name} is gone" for name in record.netns if not netns.inode(name)]


def all_labs() -> list[LabStatus]:
    return [lab_status(name) for name in lab_names()]
