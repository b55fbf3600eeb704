"""What an agent knows of its node: network namespaces, devices, settings, rulesets."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.fabric import Fabric
from kubectl_genainet.model.units import Nanoseconds


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """What a device sends by (`tc qdisc`). `kind` is rtnetlink's ("tbf", "fq_codel"); of tbf also the `rate`, in bytes a second,
    and how many bytes may wait (`limit`). Both are 0 where they are not known."""

    kind: str
    rate: int = 0
    limit: int = 0


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A network device. `kind` is rtnetlink's ("veth", "vxlan", "" for hardware); `peer_netns` is 0 if unknown.

    `external` is a tunnel of which a program (eBPF, Open vSwitch) says for each packet where it goes: `ip -d link` writes
    "external". Its MTU is not what it carries.
    """

    name: str
    ifindex: int
    mtu: int
    kind: str = ""
    up: bool = True
    addresses: tuple[str, ...] = ()  # without prefix length
    peer_ifindex: int = 0
    peer_netns: int = 0
    external: bool = False
    queue: Queue | None = None  # None: it has none, or it was not read


class Route(msgspec.Struct, frozen=True):
    """A route of a namespace's main table. `dst` is a prefix ("0.0.0.0/0" for the default route), `via` a gateway; `mtu` is
    0 where the route has none of its own."""

    dst: str
    device: str
    via: str = ""
    mtu: int = 0


class Listener(msgspec.Struct, frozen=True):
    """A socket that receives what comes to a port: TCP in LISTEN, or UDP bound and not connected.

    `ip` is what it is bound to ("0.0.0.0" and "::": any). `v6only`: one on "::" that gets no IPv4.
    """

    ip: str
    port: int
    v6only: bool = False


ICMP_LIMITS = (
    "IcmpOutRateLimitGlobal",
    "IcmpOutRateLimitHost",
)  # counters: ICMP errors that the kernel's limits held back


class NetNs(msgspec.Struct, frozen=True, kw_only=True):
    """A network namespace of the node. `pod_uids` come from the cgroups of the processes inside it."""

    inode: int
    host: bool
    devices: tuple[Device, ...] = ()
    pod_uids: tuple[str, ...] = ()
    conntrack_count: int | None = None
    conntrack_max: int | None = None
    sysctls: dict[str, str] = {}
    counters: dict[str, int] = {}  # ListenOverflows, IcmpOutRateLimitHost, …; of the host: conntrack_drop, …
    nic_counters: dict[
        str, dict[str, int]
    ] = {}  # by device: what its driver counts of trouble (`ethtool -S`), if not zero
    name: str = ""  # the file in /run/netns, where there is one
    routes: tuple[Route, ...] | None = None  # None: not read
    resolv_conf: str = ""  # of the containers inside; "" where it was not read
    tcp_listeners: tuple[Listener, ...] | None = None  # None: not read, or too many to send
    udp_listeners: tuple[Listener, ...] | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(a for d in self.devices if d.name != "lo" for a in d.addresses)


class ContainerCpu(msgspec.Struct, frozen=True, kw_only=True):
    """A container's CPU limit at work, since it started: in how many periods it ran, and was stopped until the next."""

    container: str  # ID, 64 hexadecimal digits, as in a pod's status.containerStatuses[].containerID
    periods: int  # 0 without a limit
    throttled: int
    throttled_us: int


class Latency(msgspec.Struct, frozen=True):
    """A histogram since a process's start: how many, and a bound that the slowest one in a hundred exceeded (0: none)."""

    count: int = 0
    p99_over_s: float = 0.0


class KubeProxyState(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's kube-proxy says of itself.

    `mode` is as it runs ("" if it does not say), `syncs` how long writing the rules took, `programming` how long after a
    change of an endpoint the rules were written.
    """

    mode: str = ""
    syncs: Latency = Latency()
    programming: Latency = Latency()


class NodeReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="node"):
    """The node's network namespaces. `t_ns` is when the reading began: what they count has all that happened before."""

    node: str
    t_ns: Nanoseconds
    namespaces: tuple[NetNs, ...]
    unreadable: tuple[str, ...] = ()  # what could not be read, and why
    containers: tuple[ContainerCpu, ...] = ()
    fabric: Fabric | None = None  # None: not read
    kube_proxy: KubeProxyState | None = None  # None: it could not be asked


STATISTICS = frozenset({"conntrack", "conntrack-stats"})  # sources of dumps that hold no rules


class RulesetDump(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="ruleset"):
    """Packet rules of the node's host namespace, as the system's own tools print them.

    `source` is one of iptables-nft, iptables-legacy, ip6tables-nft, ip6tables-legacy (`-save -c` text),
    nft (`nft -j list ruleset` text), ipvs (`ipvsadm -Sn` text), ipset (`ipset list` text), conntrack-stats, conntrack
    (`conntrack -L` text of translated connections, only where it was asked for).
    """

    node: str
    t_ns: Nanoseconds
    source: str
    text: str
    error: str = ""  # why it could not be read; `text` is then empty


class NetnsRules(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="netns_rules"):
    """Packet rules of a namespace, read once a packet has died in it where they may be why. Of the host's only what has changed
    is sent, as RulesetDump before this, and `dumps` is empty. `t_ns` is when the reading began."""

    node: str
    t_ns: Nanoseconds
    netns: int
    dumps: tuple[RulesetDump, ...]
