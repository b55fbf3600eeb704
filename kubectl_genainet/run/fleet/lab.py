"""`lab`: a cluster on this machine, brought up, looked at, broken on purpose and taken away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from kubectl_genainet.lab.spec import DEFAULT_NAME, AddressFamily, LabSpec, Overlay, ProxyMode
from kubectl_genainet.model.results.lab import LabStatus

if TYPE_CHECKING:
    from kubectl_genainet.lab.incidents import Incident

FAMILIES = {"ipv4": (AddressFamily.IPV4,), "dual": (AddressFamily.IPV4, AddressFamily.IPV6)}
PROXY_MODES = tuple(mode.value for mode in ProxyMode)
OVERLAYS = tuple(overlay.value for overlay in Overlay)

__all__ = [
    "DEFAULT_NAME",
    "FAMILIES",
    "OVERLAYS",
    "PROXY_MODES",
    "LabUp",
    "clear_incident",
    "execute",
    "incidents",
    "lab_down",
    "lab_status",
    "lab_up",
    "labs",
    "make_incident",
]


@dataclass(frozen=True, slots=True)
class LabUp:
    """A lab that was brought up, in so many seconds."""

    nodes: int
    pods: int
    seconds: float
    policy_enforcer: str


def lab_up(
    name: str,
    say: Callable[[str], None],
    *,
    nodes: int = 3,
    proxy_mode: str = "iptables",
    overlay: str = "none",
    ip_family: str = "ipv4",
    manifests: str = "",
    record: bool = False,
) -> LabUp:
    """Brings a lab up. Raises GenainetError where one of that name is up already."""
    from kubectl_genainet.lab import cluster
    from kubectl_genainet.lab.status import ENFORCER

    started = time.monotonic()
    spec = LabSpec(
        name=name,
        nodes=nodes,
        proxy_mode=ProxyMode(proxy_mode),
        overlay=Overlay(overlay),
        families=FAMILIES[ip_family],
        manifests=manifests,
        record=record,
    )
    made = cluster.up(spec, say)
    return LabUp(len(made.nodes), len(made.pods), time.monotonic() - started, ENFORCER)


def lab_down(name: str, *, all_labs: bool = False) -> tuple[str, ...]:
    """Removes a lab, or all of this machine; their names."""
    from kubectl_genainet.lab import cluster
    from kubectl_genainet.lab.state import lab_names

    names = tuple(lab_names()) if all_labs else (name,)
    for each in names:
        cluster.down(each)
    return names


def lab_status(name: str) -> LabStatus:
    """Raises GenainetError where there is no lab of that name."""
    from kubectl_genainet.lab import status

    return status.lab_status(name)


def labs() -> list[LabStatus]:
    """The labs of this machine."""
    from kubectl_genainet.lab import status

    return status.all_labs()


def execute(name: str, pod: str, command: Sequence[str], namespace: str) -> NoReturn:
    """Becomes a command in a pod's network namespace, with the pod's resolv.conf."""
    from kubectl_genainet.lab import execute as executing

    executing.execute(name, pod, tuple(command), namespace)


def incidents() -> tuple[Incident, ...]:
    """The faults that can be made in a lab."""
    from kubectl_genainet.lab import incidents as making

    return tuple(making.incidents().values())


def make_incident(name: str, incident: str) -> Incident:
    """Makes a fault in the lab. Raises GenainetError for one that there is not."""
    from kubectl_genainet.lab import incidents as making

    return making.make_incident(name, incident)


def clear_incident(name: str, incident: str) -> bool:
    """Undoes a fault; whether it was in the lab."""
    from kubectl_genainet.lab import incidents as making

    return making.clear_incident(name, incident)
