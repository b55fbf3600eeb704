"""What the node is made of: its network namespaces, their devices, whose pods they are, their settings.

A namespace is the node's own if it is the host's, or a veth pair joins it to the host's namespace, or a container
of a pod runs in it and the node has the kernel for itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from pyroute2 import IPRoute

from kubectl_genainet.agent.fabric.report import fabric_report, read_fabric
from kubectl_genainet.agent.node.containers import container_cpu
from kubectl_genainet.agent.node.details import Details, Sockets, receiving
from kubectl_genainet.agent.node.kubeproxy import read_kube_proxy
from kubectl_genainet.agent.node.namespace import Candidate, Links, look_inside, network_cookie
from kubectl_genainet.agent.node.netns import inside_path
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.node import ContainerCpu, NetNs, NodeReport

T = TypeVar("T")

MAX_NAMESPACES = 2000
MAX_PARTS = 200_000
REPORT_S = 20.0  # for all namespaces of a node
_RUN_NETNS = (Path("/run/netns"), Path("/var/run/docker/netns"))
# kubepods/burstable/pod<uid>/<container> (cgroupfs) or kubepods-burstable-pod<uid_with_underscores>.slice (systemd)
_POD_UID = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_HOST_NETNS_HINT = "In a pod the agent needs hostPID and CAP_SYS_PTRACE; elsewhere name it with --host-netns."


def pod_uids(cgroups: str) -> set[str]:
    """The UIDs of pods in a /proc/PID/cgroup, of cgroup v1 (a line a hierarchy), v2 (one line, 0::) or both.

    A static pod's cgroup has a hash of its manifest in place of a UID, which the API does not know: it has none here.
    Source: kubelet's names, pkg/kubelet/cm/cgroup_manager_linux.go (ToSystemd, ToCgroupfs) and GetPodContainerName.
    """
    return {match[1].replace("_", "-") for match in _POD_UID.finditer(cgroups)}


def _parent(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def _sees_all_processes() -> bool:
    """Whether the kernel's own threads are visible: not from a container without hostPID."""
    try:
        return Path("/proc/2/comm").read_text().strip() == "kthreadd"
    except OSError:
        return False


def default_host_netns() -> str:
    """The node's host namespace: that of the container runtime which started this process, else this process's own.

    Not PID 1's: where nodes share a kernel (kind, the test cluster), PID 1 is none of theirs.
    """
    own = os.stat("/proc/self/ns/net").st_ino
    pid = os.getppid()
    while pid > 1:
        try:
            path = f"/proc/{pid}/ns/net"
            if os.stat(path).st_ino != own:
                return path
            pid = _parent(pid)
        except PermissionError:
            # Not "then it is my own": in a pod that would take the pod's namespace for the node's.
            raise GenainetError(
                f"the node's network namespace can't be found: process {pid}, which started the agent, may not be looked "
                "at",
                hint=_HOST_NETNS_HINT,
            ) from None
        except OSError:
            break
    if not _sees_all_processes():
        raise GenainetError(
            "the node's network namespace can't be found: the container runtime's processes are not visible",
            hint=_HOST_NETNS_HINT,
        )
    return "/proc/self/ns/net"


def kernel_is_shared(host_netns: str) -> bool:
    """Whether other nodes may run on this kernel (the lab, kind): the host's namespace isn't the kernel's first."""
    try:
        return not _sees_all_processes() or Path("/proc/2/ns/net").stat().st_ino != Path(host_netns).stat().st_ino
    except OSError:
        return True


def _candidates() -> dict[int, Candidate]:
    """Namespaces by inode: those of processes, and those that a file in /run/netns keeps."""
    candidates: dict[int, Candidate] = {}
    for folder in _RUN_NETNS:
        if folder.is_dir():
            for entry in folder.iterdir():
                try:
                    candidates.setdefault(entry.stat().st_ino, Candidate(str(entry)))
                except OSError:
                    continue
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            inode = os.stat(f"/proc/{pid}/ns/net").st_ino
            candidate = candidates.setdefault(inode, Candidate(f"/proc/{pid}/ns/net"))
            uids = pod_uids(Path(f"/proc/{pid}/cgroup").read_text(errors="replace"))
            if uids:
                candidate.pod_uids |= uids
                candidate.container_pids = [*candidate.container_pids[-4:], pid]
        except OSError:  # the process has ended, or may not be looked at
            continue
    return candidates


@dataclass(frozen=True, slots=True)
class NotOwn:
    """A namespace that is not the node's, with these devices. Its inode number is used again once it has gone, its cookie is
    not."""

    cookie: int
    devices: tuple[bytes, ...]


def _device_names() -> tuple[bytes, ...]:
    """Of the caller's namespace, without netlink, which costs much more."""
    lines = Path("/proc/thread-self/net/dev").read_bytes().splitlines()
    return tuple(sorted(line.partition(b":")[0].strip() for line in lines if b":" in line))


def _not_own(candidate: Candidate, host_fd: int, known: NotOwn | None) -> NotOwn | None:
    """None where it is: every link that leads out of the namespace leads to the host's, and there is one. `known` is
    what the last look gave.

    Such links are what a CNI plugin makes of a pod. The underlay between nodes has links to several of them.
    Source: rtnetlink(7), IFLA_LINK_NETNSID and RTM_GETNSID.
    """

    def read() -> NotOwn | None:
        other = NotOwn(network_cookie(), _device_names())
        if other.devices == (b"lo",) or (other.cookie and other == known):
            return other
        with IPRoute() as ipr:
            ids = {link.get_attr("IFLA_LINK_NETNSID") for link in ipr.get_links()} - {None}
            return None if ids and ids == {dict(ipr.get_netnsid(fd=host_fd)).get("nsid")} else other

    try:
        return inside_path(candidate.path, read)
    except Exception:  # gone, or unreadable: not known to be this node's
        return NotOwn(0, ())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"[:200]


class Inventory:
    """The node's namespaces, looked at anew by `report` and `own_inodes`."""

    def __init__(self, node: str, host_netns: str = "") -> None:
        self.node = node
        self.host_netns = host_netns or default_host_netns()
        try:
            os.stat(self.host_netns)
        except OSError as error:
            raise GenainetError(
                f"the node's network namespace {self.host_netns} can't be looked at: {error.strerror}",
                hint=_HOST_NETNS_HINT,
            ) from None
        self.shared = kernel_is_shared(self.host_netns)
        self._details: Details | None = None
        self._not_own: dict[int, NotOwn | None] = {}  # by inode, as last found; None: the node's own
        self._links: dict[int, Links] = {}  # by inode, as last read

    def _own(self) -> dict[int, Candidate]:
        candidates = _candidates()
        host = os.stat(self.host_netns).st_ino
        candidates[host] = Candidate(self.host_netns)
        if not self.shared:
            return candidates
        host_fd = os.open(self.host_netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            looked_at: dict[int, NotOwn | None] = {host: None}
            for inode, candidate in candidates.items():
                known = self._not_own.get(inode)
                own = inode == host or (inode in self._not_own and known is None)  # the links of a pod are made once
                looked_at[inode] = None if own else _not_own(candidate, host_fd, known)
        finally:
            os.close(host_fd)
        self._not_own = looked_at
        return {i: c for i, c in candidates.items() if looked_at[i] is None}

    @property
    def host_inode(self) -> int:
        return os.stat(self.host_netns).st_ino

    def path_of(self, inode: int) -> str | None:
        """The path of a namespace of the node; None where it is gone or another's."""
        candidate = self._own().get(inode)
        return candidate.path if candidate is not None else None

    def own_inodes(self) -> set[int]:
        """Inode numbers of the node's namespaces."""
        return set(self._own())

    def report(self, *, fresh: bool = True) -> NodeReport:
        """All there is to say of the node's namespaces now; what can't be read is named.

        Unless `fresh`, details (agent.details), devices and routes may be some seconds old.
        """
        begun_ns = time.monotonic_ns()
        host = os.stat(self.host_netns).st_ino
        deadline = time.monotonic() + REPORT_S
        namespaces: list[NetNs] = []
        parts = 0  # devices, addresses, routes: what a record's size depends on
        own, unreadable = self._bounded(self._own(), host)
        if fresh or self._details is None or self._details.outdated(own.keys()):
            self._details = self._read_details(own, deadline)
        if own.keys() != self._links.keys():  # a pod that comes or goes has a device and routes at the host's end
            self._links.pop(host, None)
        links, self._links = {} if fresh else self._links, {}
        for inode, candidate in own.items():
            if time.monotonic() > deadline or parts > MAX_PARTS:
                why = "no time left" if parts <= MAX_PARTS else f"the others have more than {MAX_PARTS} parts"
                unreadable.append(f"{len(own) - len(self._links)} network namespaces: {why}")
                break
            try:
                netns, read_links = look_inside(inode, candidate, host=inode == host, known=links.get(inode))
            except Exception as error:  # whatever somebody made of it: the others are read all the same
                if candidate.leads_to(inode):
                    unreadable.append(f"network namespace {inode}: {_reason(error)}")
                continue
            self._links[inode] = read_links
            parts += read_links.parts
            unreadable += [f"network namespace {inode}: {text}" for text in read_links.left_out]
            tcp, udp = self._details.sockets(inode)
            namespaces.append(msgspec.structs.replace(netns, tcp_listeners=tcp, udp_listeners=udp))
        return NodeReport(
            node=self.node,
            t_ns=begun_ns,
            namespaces=tuple(namespaces),
            unreadable=(*unreadable, *self._details.unreadable),
            containers=self._details.containers,
            fabric=self._details.fabric,
            kube_proxy=self._details.kube_proxy,
        )

    def fabric(self, addresses: Sequence[str]) -> FabricReport:
        """RDMA devices, and the TCP connections of the namespaces that have these addresses."""
        wanted, paths = set(addresses), dict[str, tuple[int, str]]()
        for inode, candidate in self._own().items():
            if len(paths) == len(wanted):
                break
            try:
                has = wanted & set(look_inside(inode, candidate, host=False)[0].addresses)
            except Exception:  # gone, or unreadable: none of its addresses is in the answer
                continue
            paths |= dict.fromkeys(has, (inode, candidate.path))
        return fabric_report(self.node, paths)

    @staticmethod
    def _bounded(own: dict[int, Candidate], host: int) -> tuple[dict[int, Candidate], list[str]]:
        """At most MAX_NAMESPACES, the host's and named ones first: any pod may make more. And what to say of the rest."""
        order = sorted(own, key=lambda inode: (inode != host, not own[inode].name, not own[inode].pod_uids))
        kept = {inode: own[inode] for inode in order[:MAX_NAMESPACES]}
        left_out = len(own) - len(kept)
        return kept, [f"{left_out} network namespaces: there are more than {MAX_NAMESPACES}"] if left_out else []

    def _read_details(self, own: dict[int, Candidate], deadline: float) -> Details:
        """What fails is named; that a namespace has gone, or could not be entered, the report says itself."""
        sockets: dict[int, Sockets] = {}
        unreadable = []
        for inode, candidate in own.items():
            if time.monotonic() > deadline:
                unreadable.append("listening sockets: no time left")
                break
            with contextlib.suppress(Exception):
                sockets[inode] = inside_path(candidate.path, receiving)
        proxy = None
        containers: tuple[ContainerCpu, ...] = ()
        try:
            proxy = inside_path(self.host_netns, read_kube_proxy)
        except Exception as error:
            unreadable.append(f"kube-proxy's metrics: {_reason(error)}")
        try:
            containers = container_cpu(set(own))
        except Exception as error:
            unreadable.append(f"the containers' CPU accounts: {_reason(error)}")
        fabric = read_fabric()
        unreadable += fabric.unreadable
        return Details(time.monotonic(), frozenset(own), sockets, containers, proxy, fabric, tuple(unreadable))

    def place_of_address(self, ip: str) -> tuple[str | None, str]:
        """The path of the namespace that has the address, host's first, and its pod's resolv.conf; None where none has it."""
        wanted = canonical_ip(ip)
        for inode, candidate in self._own().items():
            try:
                namespace = look_inside(inode, candidate, host=False)[0]
                if wanted in namespace.addresses:
                    return candidate.path, namespace.resolv_conf
            except Exception:  # unreadable: the report says so
                continue
        return None, ""


def host_name() -> str:
    return os.environ.get("NODE_NAME") or socket.gethostname()
