"""What one network namespace holds: devices, addresses, routes, settings, counters."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from kubectl_genainet.agent.fabric.nics import statistics
from kubectl_genainet.agent.node.fields import resolv_conf_fields
from kubectl_genainet.agent.node.inroot import Process, read_plain
from kubectl_genainet.agent.node.netns import inside_path
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.node import ICMP_LIMITS, Device, NetNs, Queue, Route
from kubectl_genainet.model.units import whole_number

LINKS_S = 15.0  # devices and routes of a namespace are read anew after this time, or when a namespace comes or goes
_TC_H_ROOT = 0xFFFFFFFF  # include/uapi/linux/pkt_sched.h
_NO_QUEUES = frozenset({"noqueue", "noop"})
_RATE64 = 0xFFFFFFFF  # a rate that does not fit stands in TCA_TBF_RATE64
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h
MAX_ROUTES = 10_000
MAX_NICS = 64
MAX_DEVICES = 4096
MAX_ADDRESSES = 1000  # of a namespace that any pod may fill
MAX_HOST_ADDRESSES = 65_536  # kube-ipvs0 has every Service's
# Where a network namespace that has a name may have files of its own (ip-netns(8)); the lab keeps them elsewhere.
NETNS_FILES = [*filter(None, [os.environ.get("GENAINET_NETNS_FILES")]), "/etc/netns"]
_RESOLV_CONF_MAX = 8192
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/tcp_mtu_probing",
    "net/core/somaxconn",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/ip_local_port_range",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/bridge/bridge-nf-call-iptables",
)


class Candidate:
    """A network namespace that something on this machine uses."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = Path(path).name if path.startswith("/run/netns/") else ""
        self.pod_uids: set[str] = set()
        self.container_pids: list[str] = []

    def leads_to(self, inode: int) -> bool:
        """Whether the path is still the namespace's: one that has gone is not unreadable."""
        try:
            return os.stat(self.path).st_ino == inode
        except OSError:
            return False


def _devices(ipr: Any, most_addresses: int) -> Iterator[tuple[Device, int]]:
    """Each device, with how many of its addresses are left out because there are more than `most_addresses` in all."""
    addresses: dict[int, list[str]] = defaultdict(list)
    left_out: Counter[int] = Counter()
    for number, message in enumerate(ipr.get_addr()):
        attrs = dict(message["attrs"])
        address = attrs.get("IFA_LOCAL") or attrs.get("IFA_ADDRESS")
        if address and number < most_addresses:
            addresses[message["index"]].append(canonical_ip(address))
        elif address:
            left_out[message["index"]] += 1
    links = list(ipr.get_links())
    queues = _queues(ipr, links)
    for message in links:
        attrs = dict(message["attrs"])
        info = dict(attrs["IFLA_LINKINFO"]["attrs"]) if "IFLA_LINKINFO" in attrs else {}
        device = Device(
            name=device_name(attrs.get("IFLA_IFNAME", "")),
            ifindex=message["index"],
            mtu=attrs.get("IFLA_MTU", 0),
            kind=device_name(info.get("IFLA_INFO_KIND", "")),
            up=bool(message["flags"] & 1),
            addresses=tuple(addresses.get(message["index"], ())),
            peer_ifindex=attrs.get("IFLA_LINK") or 0,
            external=_is_external(info),
            queue=queues.get(message["index"]),
        )
        yield device, left_out[message["index"]]


def _queues(ipr: Any, links: list[Any]) -> dict[int, Queue]:
    """What each device sends by. Its own message has the kind; the rates of tbf are asked where a device has one."""
    kinds = {link["index"]: dict(link["attrs"]).get("IFLA_QDISC") for link in links}
    limits = dict(map(_tbf, filter(_is_tbf, ipr.get_qdiscs()))) if "tbf" in kinds.values() else {}
    return {
        index: limits.get(index, Queue(kind=kind)) for index, kind in kinds.items() if kind and kind not in _NO_QUEUES
    }


def _is_tbf(message: Any) -> bool:
    return message["parent"] == _TC_H_ROOT and dict(message["attrs"]).get("TCA_KIND") == "tbf"


def _tbf(message: Any) -> tuple[int, Queue]:
    options = dict(message["attrs"]).get("TCA_OPTIONS")
    parameters = dict(options["attrs"]).get("TCA_TBF_PARMS", {}) if options else {}
    rate = parameters.get("rate", 0)
    return message["index"], Queue(kind="tbf", rate=0 if rate == _RATE64 else rate, limit=parameters.get("limit", 0))


def _is_external(info: dict[str, Any]) -> bool:
    """Whether a tunnel takes the ends of its packets from their metadata (IFLA_*_COLLECT_METADATA, linux/if_link.h)."""
    data = info.get("IFLA_INFO_DATA")
    attrs = data["attrs"] if isinstance(data, dict) and "attrs" in data else ()
    return any(name.endswith("_COLLECT_METADATA") and value not in (0, False) for name, value in attrs)


def device_name(name: str | bytes) -> str:
    """A device's name as the probes tell it (agent/probes/decode.py): the kernel lets it be any bytes."""
    raw = name.encode(errors="surrogateescape") if isinstance(name, str) else name
    return raw.rstrip(b"\0").decode("ascii", "backslashreplace")


def _routes(ipr: Any, devices: tuple[Device, ...]) -> Iterator[Route]:
    """The main table (rtnetlink table 254)."""
    names = {device.ifindex: device.name for device in devices}
    for message in ipr.get_routes(table=254):
        attrs = dict(message["attrs"])
        everything = "::/0" if message["family"] == socket.AF_INET6 else "0.0.0.0/0"
        dst = f"{attrs['RTA_DST']}/{message['dst_len']}" if "RTA_DST" in attrs else everything
        metrics = dict(attrs["RTA_METRICS"]["attrs"]) if "RTA_METRICS" in attrs else {}
        device = names.get(attrs.get("RTA_OIF", 0), "")
        yield Route(dst, device, attrs.get("RTA_GATEWAY", ""), metrics.get("RTAX_MTU", 0))


def _read_int(path: str) -> int | None:
    try:
        return whole_number(Path(path).read_text(errors="replace"))
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return None


_COUNTERS = {
    "netstat": (
        "TcpExt:",
        (
            "ListenOverflows",
            "ListenDrops",
            "TCPReqQFullDrop",
            "TCPReqQFullDoCookies",
            "TCPBacklogDrop",
            "TCPRcvQDrop",
            "PAWSEstab",
        ),
    ),
    "snmp": ("Icmp:", ICMP_LIMITS),
}


def _protocol_counters() -> dict[str, int]:
    """Counters of the namespace that the caller is in, of those that its kernel has (/proc/net/netstat and snmp: a line of names,
    a line of values)."""
    found: dict[str, int] = {}
    for file, (protocol, wanted) in _COUNTERS.items():
        try:
            lines = Path(f"/proc/thread-self/net/{file}").read_text().splitlines()
        except OSError:
            continue
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            if names.startswith(protocol):
                prefix = "Icmp" if protocol == "Icmp:" else ""
                numbers = map(whole_number, values.split()[1:])
                counters = dict(zip((f"{prefix}{name}" for name in names.split()[1:]), numbers, strict=False))
                found |= {name: n for name in wanted if (n := counters.get(name)) is not None}
    return found


_CONNTRACK = {
    "CTA_STATS_DROP": "drop",
    "CTA_STATS_INSERT_FAILED": "insert_failed",
    "CTA_STATS_EARLY_DROP": "early_drop",
    "CTA_STATS_INVALID": "invalid",
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
    counters = [dict(cpu["attrs"]) for cpu in per_cpu]
    return {f"conntrack_{name}": sum(cpu.get(key) or 0 for cpu in counters) for key, name in _CONNTRACK.items()}


def _resolv_conf(candidate: Candidate, inode: int) -> str:
    """The fields of /etc/resolv.conf as the namespace's containers see it, "" where none could be read.

    Read through a process inside; of a namespace that only has a name, the file that ip-netns(8) would give it.
    """
    for pid in candidate.container_pids:
        with contextlib.suppress(OSError), Process(pid) as process:
            inside = process.network_namespace == inode
            text = process.read_in_root("/etc/resolv.conf", _RESOLV_CONF_MAX) if inside else ""
            if fields := resolv_conf_fields(text):
                return fields
    paths = (f"{folder}/{candidate.name}/resolv.conf" for folder in NETNS_FILES if candidate.name)
    configurations = (resolv_conf_fields(read_plain(path, _RESOLV_CONF_MAX)) for path in paths)
    return next(filter(None, configurations), "")


@dataclass(frozen=True, slots=True)
class Links:
    """The devices and routes of a namespace. Reading them costs most of what looking at a namespace costs."""

    cookie: int
    read_at: float
    settled: bool  # two looks found the same: a network plugin is not in the middle of its work
    devices: tuple[Device, ...]
    routes: tuple[Route, ...]
    left_out: tuple[str, ...] = ()  # what there was too much of

    @property
    def parts(self) -> int:
        return len(self.devices) + len(self.routes) + sum(len(device.addresses) for device in self.devices)


def network_cookie() -> int:
    """What tells the caller's namespace from all others since the kernel started: an inode number is used again.

    0 before Linux 5.14, which has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError:
            return 0


def _read_links(known: Links | None, *, host: bool) -> Links:
    """Of the caller's namespace; `known` where that is this namespace's, settled and fresh."""
    cookie, now = network_cookie(), time.monotonic()
    same = known if known is not None and cookie and known.cookie == cookie else None
    if same is not None and same.settled and now - same.read_at < LINKS_S:
        return same
    with IPRoute() as ipr:
        counted = list(_devices(ipr, MAX_HOST_ADDRESSES if host else MAX_ADDRESSES))
        devices = tuple(device for device, _ in counted[:MAX_DEVICES])
        routes = tuple(itertools.islice(_routes(ipr, devices), MAX_ROUTES + 1))
    without = sum(n for _, n in counted)
    left_out = [f"{len(counted) - MAX_DEVICES} devices are left out"] if len(counted) > MAX_DEVICES else []
    left_out += [f"{without} addresses are left out"] if without else []
    left_out += [f"routes beyond {MAX_ROUTES:,} are left out"] if len(routes) > MAX_ROUTES else []
    routes = routes[:MAX_ROUTES]
    settled = same is not None and (same.devices, same.routes) == (devices, routes)
    return Links(cookie, now, settled, devices, routes, tuple(left_out))


def _hardware(devices: tuple[Device, ...]) -> list[Device]:
    return [d for d in devices if not d.kind and d.name != "lo"][:MAX_NICS]


def look_inside(inode: int, candidate: Candidate, *, host: bool, known: Links | None = None) -> tuple[NetNs, Links]:
    """The namespace as it is now, and its devices and routes, which may be those that were read before."""

    def read() -> tuple[NetNs, Links]:
        links = _read_links(known, host=host)
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
            inode=inode,
            host=host,
            devices=devices,
            routes=links.routes,
            pod_uids=tuple(sorted(candidate.pod_uids)),
            name=candidate.name,
            conntrack_count=_read_int("/proc/sys/net/netfilter/nf_conntrack_count"),
            conntrack_max=_read_int("/proc/sys/net/netfilter/nf_conntrack_max"),
            sysctls=sysctls,
            nic_counters={d.name: counters for d in _hardware(devices) if (counters := statistics(d.name))},
            counters={**_protocol_counters(), **(_conntrack_counters() if host else {})},
            resolv_conf="" if host else _resolv_conf(candidate, inode),
        )
        return netns, links

    return inside_path(candidate.path, read)
