"""What the node is made of: its network namespaces, their devices, whose pods they are, their settings.

A namespace is the node's own if it is the host's, or a veth pair joins it to the host's namespace, or a container
of a pod runs in it and the node has the kernel for itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from kubectl_genainet.agent.containers import container_cpu, read_inside
from kubectl_genainet.agent.details import Details, Sockets, receiving
from kubectl_genainet.agent.kubeproxy import read_kube_proxy
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.node import Device, NetNs, NodeReport, Route

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_RUN_NETNS = (Path("/run/netns"), Path("/var/run/docker/netns"))
# kubepods/burstable/pod<uid>/<container> (cgroupfs) or kubepods-burstable-pod<uid_with_underscores>.slice (systemd)
_POD_UID = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
LINKS_S = 15.0  # devices and routes of a namespace are read anew after this time, or when a namespace comes or goes
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h
MAX_ROUTES = 10_000
_HOST_NETNS_HINT = "In a pod the agent needs hostPID and CAP_SYS_PTRACE; elsewhere name it with --host-netns."
# Where a network namespace that has a name may have files of its own (ip-netns(8)); the lab keeps them elsewhere.
NETNS_FILES = [*filter(None, [os.environ.get("GENAINET_NETNS_FILES")]), "/etc/netns"]
_RESOLV_CONF_MAX = 8192
_SYSCTLS = (
    "net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter",
    "net/ipv4/tcp_mtu_probing", "net/core/somaxconn", "net/ipv4/tcp_max_syn_backlog", "net/ipv4/ip_local_port_range",
    "net/ipv6/conf/all/forwarding", "net/ipv4/neigh/default/gc_thresh3", "net/bridge/bridge-nf-call-iptables",
)  # fmt: skip


def pod_uids(cgroups: str) -> set[str]:
    """The UIDs of pods in a /proc/PID/cgroup, of cgroup v1 (a line a hierarchy), v2 (one line, 0::) or both.

    A static pod's cgroup has a hash of its manifest in place of a UID, which the API does not know: it has none here.
    Source: kubelet's names, pkg/kubelet/cm/cgroup_manager_linux.go (ToSystemd, ToCgroupfs) and GetPodContainerName.
    """
    return {match[1].replace("_", "-") for match in _POD_UID.finditer(cgroups)}


def inside(netns_fd: int, action: Callable[[], T]) -> T:
    """Runs `action` in a thread of its own that has entered the namespace, and returns its result."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.setns(netns_fd, _CLONE_NEWNET):
                error = ctypes.get_errno()
                raise OSError(error, f"setns: {os.strerror(error)}")
            result.append(action())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


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


class _Candidate:
    """A network namespace that something on this machine uses."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = Path(path).name if path.startswith("/run/netns/") else ""
        self.pod_uids: set[str] = set()
        self.container_pids: list[str] = []


def _candidates() -> dict[int, _Candidate]:
    """Namespaces by inode: those of processes, and those that a file in /run/netns keeps."""
    found: dict[int, _Candidate] = {}
    for folder in _RUN_NETNS:
        if folder.is_dir():
            for entry in folder.iterdir():
                try:
                    found.setdefault(entry.stat().st_ino, _Candidate(str(entry)))
                except OSError:
                    continue
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            inode = os.stat(f"/proc/{pid}/ns/net").st_ino
            candidate = found.setdefault(inode, _Candidate(f"/proc/{pid}/ns/net"))
            uids = pod_uids(Path(f"/proc/{pid}/cgroup").read_text())
            if uids:
                candidate.pod_uids |= uids
                candidate.container_pids = [*candidate.container_pids[-4:], pid]
        except OSError:  # the process has ended, or may not be looked at
            continue
    return found


def _devices(ipr: Any) -> Iterator[Device]:
    addresses: dict[int, list[str]] = defaultdict(list)
    for message in ipr.get_addr():
        attrs = dict(message["attrs"])
        address = attrs.get("IFA_LOCAL") or attrs.get("IFA_ADDRESS")
        if address:
            addresses[message["index"]].append(canonical_ip(address))
    for message in ipr.get_links():
        attrs = dict(message["attrs"])
        info = dict(attrs["IFLA_LINKINFO"]["attrs"]) if "IFLA_LINKINFO" in attrs else {}
        yield Device(
            name=attrs.get("IFLA_IFNAME", ""), ifindex=message["index"], mtu=attrs.get("IFLA_MTU", 0),
            kind=info.get("IFLA_INFO_KIND", ""), up=bool(message["flags"] & 1),
            addresses=tuple(addresses.get(message["index"], ())), peer_ifindex=attrs.get("IFLA_LINK") or 0,
        )  # fmt: skip


def _routes(ipr: Any, devices: tuple[Device, ...]) -> Iterator[Route]:
    """The main table (rtnetlink table 254)."""
    names = {device.ifindex: device.name for device in devices}
    for message in ipr.get_routes(table=254):
        attrs = dict(message["attrs"])
        everything = "::/0" if message["family"] == socket.AF_INET6 else "0.0.0.0/0"
        dst = f"{attrs['RTA_DST']}/{message['dst_len']}" if "RTA_DST" in attrs else everything
        yield Route(dst, names.get(attrs.get("RTA_OIF", 0), ""), attrs.get("RTA_GATEWAY", ""))


def _read_int(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _netstat() -> dict[str, int]:
    """TcpExt counters of the namespace that the caller is in (/proc/net/netstat: a line of names, a line of values)."""
    wanted = ("ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPBacklogDrop", "TCPRcvQDrop")
    try:
        lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    except OSError:
        return {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            found = dict(zip(names.split()[1:], map(int, values.split()[1:]), strict=False))
            return {name: found[name] for name in wanted if name in found}
    return {}


_CONNTRACK = {
    "CTA_STATS_DROP": "drop",
    "CTA_STATS_INSERT_FAILED": "insert_failed",
    "CTA_STATS_EARLY_DROP": "early_drop",
}


def _conntrack_counters() -> dict[str, int]:
    """What `conntrack -S` prints, summed over the CPUs, as "conntrack_drop" and so on; empty without conntrack.

    Source: IPCTNL_MSG_CT_GET_STATS_CPU, include/uapi/linux/netfilter/nfnetlink_conntrack.h.
    """
    try:
        with NFCTSocket() as socket:
            per_cpu = socket.stat()
    except (OSError, NetlinkError):
        return {}
    found = [dict(cpu["attrs"]) for cpu in per_cpu]
    return {f"conntrack_{name}": sum(cpu.get(key) or 0 for cpu in found) for key, name in _CONNTRACK.items()}


def _resolv_conf(candidate: _Candidate) -> str:
    """/etc/resolv.conf as the namespace's containers see it, "" where none could be read.

    Read through a process inside; of a namespace that only has a name, the file that ip-netns(8) would give it.
    """
    paths = [f"/proc/{pid}/root/etc/resolv.conf" for pid in candidate.container_pids]
    paths += [f"{folder}/{candidate.name}/resolv.conf" for folder in NETNS_FILES if candidate.name]
    return next(filter(None, (read_inside(path, _RESOLV_CONF_MAX) for path in paths)), "")


@dataclass(frozen=True, slots=True)
class _Links:
    """The devices and routes of a namespace. Reading them costs most of what looking at a namespace costs."""

    cookie: int
    read_at: float
    settled: bool  # two looks found the same: a network plugin is not in the middle of its work
    devices: tuple[Device, ...]
    routes: tuple[Route, ...]


def _cookie() -> int:
    """What tells the caller's namespace from all others since the kernel started: an inode number is used again.

    0 before Linux 5.14, which has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError:
            return 0


def _read_links(known: _Links | None) -> _Links:
    """Of the caller's namespace; `known` where that is this namespace's, settled and fresh."""
    cookie, now = _cookie(), time.monotonic()
    same = known if known is not None and cookie and known.cookie == cookie else None
    if same is not None and same.settled and now - same.read_at < LINKS_S:
        return same
    with IPRoute() as ipr:
        devices = tuple(_devices(ipr))
        routes = tuple(itertools.islice(_routes(ipr, devices), MAX_ROUTES))
    settled = same is not None and (same.devices, same.routes) == (devices, routes)
    return _Links(cookie, now, settled, devices, routes)


def _look_inside(inode: int, candidate: _Candidate, *, host: bool, known: _Links | None = None) -> tuple[NetNs, _Links]:
    """The namespace as it is now, and its devices and routes, which may be those that were read before."""

    def read() -> tuple[NetNs, _Links]:
        links = _read_links(known)
        devices = links.devices
        sysctls = {}
        for name in _SYSCTLS:
            try:
                sysctls[name.replace("/", ".")] = Path("/proc/sys", name).read_text().strip()
            except OSError:
                continue
        for device in devices:
            value = _read_int(f"/proc/sys/net/ipv4/conf/{device.name}/rp_filter") if "/" not in device.name else None
            if value is not None:
                sysctls[f"net.ipv4.conf.{device.name}.rp_filter"] = str(value)
        netns = NetNs(
            inode=inode, host=host, devices=devices, routes=links.routes, pod_uids=tuple(sorted(candidate.pod_uids)),
            name=candidate.name,
            conntrack_count=_read_int("/proc/sys/net/netfilter/nf_conntrack_count"),
            conntrack_max=_read_int("/proc/sys/net/netfilter/nf_conntrack_max"), sysctls=sysctls,
            counters={**_netstat(), **(_conntrack_counters() if host else {})},
            resolv_conf="" if host else _resolv_conf(candidate),
        )  # fmt: skip
        return netns, links

    fd = os.open(candidate.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return inside(fd, read)
    finally:
        os.close(fd)


def _hangs_on(candidate: _Candidate, host_fd: int) -> bool:
    """Whether every link that leads out of the namespace leads to the host's, and there is one.

    That is what a CNI plugin makes of a pod. The underlay between nodes has links to several of them.
    Source: rtnetlink(7), IFLA_LINK_NETNSID and RTM_GETNSID.
    """

    def read() -> bool:
        with IPRoute() as ipr:
            ids = {dict(m["attrs"]).get("IFLA_LINK_NETNSID") for m in ipr.get_links()} - {None}
            return len(ids) == 1 and ids == {dict(ipr.get_netnsid(fd=host_fd)).get("nsid")}

    try:
        fd = os.open(candidate.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return inside(fd, read)
    except OSError:
        return False
    finally:
        os.close(fd)


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
        self._hanging: dict[int, bool] = {}  # by inode, as it was found; the links of a namespace are made once
        self._links: dict[int, _Links] = {}  # by inode, as last read

    def _own(self) -> dict[int, _Candidate]:
        candidates = _candidates()
        host = os.stat(self.host_netns).st_ino
        candidates[host] = _Candidate(self.host_netns)
        if not self.shared:
            return candidates
        host_fd = os.open(self.host_netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for inode in candidates.keys() - self._hanging.keys():
                self._hanging[inode] = inode == host or _hangs_on(candidates[inode], host_fd)
        finally:
            os.close(host_fd)
        self._hanging = {i: h for i, h in self._hanging.items() if h and i in candidates}
        return {i: c for i, c in candidates.items() if self._hanging.get(i)}

    def own_inodes(self) -> set[int]:
        """Inode numbers of the node's namespaces."""
        return set(self._own())

    def report(self, *, fresh: bool = True) -> NodeReport:
        """All there is to say of the node's namespaces now; what can't be read is named.

        Unless `fresh`, details (agent.details), devices and routes may be some seconds old.
        """
        host = os.stat(self.host_netns).st_ino
        namespaces, unreadable = [], []
        own = self._own()
        if fresh or self._details is None or self._details.outdated(own.keys()):
            self._details = self._read_details(own)
        if own.keys() != self._links.keys():  # a pod that comes or goes has a device and routes at the host's end
            self._links.pop(host, None)
        links, self._links = {} if fresh else self._links, {}
        for inode, candidate in own.items():
            try:
                netns, self._links[inode] = _look_inside(inode, candidate, host=inode == host, known=links.get(inode))
                tcp, udp = self._details.sockets(inode)
                namespaces.append(msgspec.structs.replace(netns, tcp_listeners=tcp, udp_listeners=udp))
            except OSError as error:
                unreadable.append(f"network namespace {inode}: {error.strerror or error}")
        return NodeReport(
            node=self.node, t_ns=time.monotonic_ns(), namespaces=tuple(namespaces), unreadable=tuple(unreadable),
            containers=self._details.containers, kube_proxy=self._details.kube_proxy,
        )  # fmt: skip

    def _read_details(self, own: dict[int, _Candidate]) -> Details:
        sockets: dict[int, Sockets] = {}
        for inode, candidate in own.items():
            with contextlib.suppress(OSError):  # it has gone: the report says so
                sockets[inode] = self._inside(candidate.path, receiving)
        proxy = self._inside(self.host_netns, read_kube_proxy)
        return Details(time.monotonic(), frozenset(own), sockets, container_cpu(set(own)), proxy)

    @staticmethod
    def _inside(path: str, action: Callable[[], T]) -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return inside(fd, action)
        finally:
            os.close(fd)

    def path_of_address(self, ip: str) -> str | None:
        """The path of the namespace that has the address, host's first; None where none has it."""
        wanted = canonical_ip(ip)
        for inode, candidate in self._own().items():
            try:
                if wanted in _look_inside(inode, candidate, host=False)[0].addresses:
                    return candidate.path
            except OSError:
                continue
        return None


def host_name() -> str:
    return os.environ.get("NODE_NAME") or socket.gethostname()
