"""Brings a lab up, keeps its nodes in line with its objects, and takes it down."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.api.controllers import build_objects
from kubectl_genainet.lab.api.manifests import SHIPPED, read_folder
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.datapath.rules import load_rules
from kubectl_genainet.lab.datapath.wiring import HAS_IPV6, PodWire, Wires
from kubectl_genainet.lab.programs import processes
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.spec import FABRIC, AddressFamily, LabSpec, check_name, check_nodes, netns_name, node_name
from kubectl_genainet.lab.state import LabFolder, LabRecord, locked

Object = dict[str, Any]


def check_machine() -> None:
    """Raises GenainetError where this machine or this user can't have a lab."""
    if os.geteuid() != 0:
        raise GenainetError(
            "the lab makes network namespaces and needs root",
            "Run it as root, for example: sudo kubectl genainet lab up",
        )
    tools = ("iptables-restore", "ip6tables-restore", "nft", "dnsmasq")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise GenainetError(
            f"the lab needs {', '.join(missing)}", "On Debian: apt-get install iptables nftables dnsmasq-base"
        )


def up(spec: LabSpec, progress: Callable[[str], None] = lambda _: None) -> LabRecord:
    """Brings a lab up; `progress` is told what is waited for where that takes long.

    Raises GenainetError, with nothing left behind, where it can't.
    """
    check_machine()
    check_nodes(spec.nodes)
    if AddressFamily.IPV6 in spec.families and not HAS_IPV6.exists():
        raise GenainetError("this machine has no IPv6", "Bring the lab up with --ip-family ipv4.")
    with locked(check_name(spec.name), create=True) as folder:
        if folder.exists():
            whole = folder.read().up
            raise GenainetError(
                f"the lab {spec.name!r} is {'already up' if whole else 'there in part: an earlier `lab up` died'}",
                f"Take it down first: kubectl genainet lab down --lab {spec.name}. Labs of other names (--lab) can "
                "run beside it.",
            )
        documents = read_folder(SHIPPED / "system") + read_folder(Path(spec.manifests or SHIPPED / "app"))
        objects = build_objects(spec, documents)
        record = _plan(spec, objects)
        taken = [name for name in record.netns if (netns.RUN_NETNS / name).exists()]
        if taken:
            raise GenainetError(
                f"network namespaces with the lab's names are there, but not as part of a lab: {', '.join(taken)}",
                "Remove them (ip netns delete NAME), or bring the lab up under another --lab.",
            )
        # From here on, `lab down` can clean up whatever happens.
        folder.write_objects(objects)
        folder.write(record)
        try:
            _make(folder, record, objects, progress)
        except BaseException as error:
            _remove(folder, record)
            if isinstance(error, (OSError, NetlinkError)):
                raise GenainetError(
                    f"the kernel refuses a part of the lab: {error}",
                    "It needs network namespaces, veth, bridge, conntrack and NAT (and vxlan with --overlay vxlan), "
                    "CAP_NET_ADMIN and CAP_SYS_ADMIN. Nothing is left of it.",
                ) from error
            raise
    return record


def _plan(spec: LabSpec, objects: list[Object]) -> LabRecord:
    nodes = {node_name(i): netns_name(spec.name, node_name(i)) for i in range(1, spec.nodes + 1)}
    fabric = netns_name(spec.name, FABRIC)
    used = {fabric, *nodes.values()}
    pods: dict[str, str] = {}
    for pod in programs.pods_in(objects):
        metadata = pod["metadata"]
        name = netns_name(spec.name, metadata["name"])
        if name in used:
            name = netns_name(spec.name, f"{metadata['namespace']}.{metadata['name']}")
        used.add(name)
        pods[programs.member_key(pod)] = name
    record = LabRecord(id=str(uuid.uuid4()), spec=spec, nodes=nodes, pods=pods)
    record.netns = [fabric, *nodes.values(), *pods.values()]
    return record


def wires(record: LabRecord) -> Wires:
    return Wires(record.spec, netns_name(record.spec.name, FABRIC), record.nodes)


def pod_wire(record: LabRecord, pod: Object) -> PodWire:
    return PodWire(
        namespace=pod["metadata"]["namespace"],
        name=pod["metadata"]["name"],
        netns=record.pods[programs.member_key(pod)],
        index=list(record.nodes).index(pod["spec"]["nodeName"]) + 1,
        ips=tuple(i["ip"] for i in pod["status"]["podIPs"]),
    )


def _make(folder: LabFolder, record: LabRecord, objects: list[Object], progress: Callable[[str], None]) -> None:
    netns.create(record.netns)
    with wires(record) as wired:
        wired.make_fabric()
        for index in range(1, record.spec.nodes + 1):
            wired.make_node(index)
        wired.join_nodes()
        for pod in programs.pods_in(objects):
            wired.make_pod(pod_wire(record, pod))
        for ip in _balancer_ips(objects):
            wired.route_balancer(ip, 1)
    programs.write_configs(folder, record, objects)
    # The servers start while the rules are loaded.
    programs.start_workload(folder, record)
    programs.start_dns(folder, record, objects)
    programs.start_agents(folder, record)
    folder.write(record)
    load_rules(record, objects)
    programs.wait_until_ready(folder, record, progress)
    record.up = True
    folder.write(record)


def _balancer_ips(objects: list[Object]) -> Iterator[str]:
    for service in objects:
        if service["kind"] == "Service":
            for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()):
                if ingress.get("ip"):
                    yield ingress["ip"]


def down(name: str) -> None:
    """Takes a lab down, whole or in part. Raises GenainetError where there is none of this name."""
    check_machine()
    with locked(name) as folder:
        _remove(folder, folder.read())


def _remove(folder: LabFolder, record: LabRecord) -> None:
    """Ends the lab's processes, removes its namespaces (and with them its devices, rules and routes) and its files."""
    processes.end(processes.processes_of(record.id, record.netns))
    for name in record.netns:
        netns.remove(name)
    # The record goes last: as long as something is left, `lab down` finds it.
    for path in folder.path.iterdir():
        if path != folder.record_path:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    folder.record_path.unlink()
