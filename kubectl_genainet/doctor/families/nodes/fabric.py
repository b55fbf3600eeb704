"""What NICs and RDMA devices count on their nodes."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, on_node
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import host_of
from kubectl_genainet.doctor.objects.raw import sh
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity

# ENA counters by what was lost; the others (bw, pps) say that packets waited or were dropped at the instance's speed.
_LOST = {
    "conntrack_allowance_exceeded": "new connections were dropped: the instance's table of tracked connections was full",
    "linklocal_allowance_exceeded": "packets to the resolver, IMDS or time service were dropped: 1,024 a second pass",
}


@check(Area.GPU_NODES, Severity.WARNING, needs=("Node", Need.NODES))
def nic_allowance(cluster: Cluster) -> Problems:
    """A node's NIC has dropped packets because the instance was over an allowance.

    Looks at conntrack_allowance_exceeded and linklocal_allowance_exceeded of the node's devices (`ethtool -S`), counted
    since their driver was loaded.

    Why: the instance's hypervisor drops what is over, and no counter of Linux sees it: connections are refused a node under
    load (Services with many clients), or DNS is slow although CoreDNS is idle. A warning, not an error: it may be over.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-network-performance-ena.html
    """
    for report in cluster.reports:
        host = host_of(report)
        for device, counters in (host.nic_counters if host is not None else {}).items():
            for name, meaning in _LOST.items():
                if number := counters.get(name, 0):
                    yield Problem(
                        f"{device}: {meaning} ({number} times)",
                        ObjectRef("Node", report.node),
                        (on_node(report.node, f"{name} of {device} is {number}", number, field=f"{device}.{name}"),),
                        Remedy(
                            "Spread the load over more nodes or take a larger instance type; for DNS run NodeLocal DNSCache, "
                            "so that fewer queries leave the node.",
                            command=f"ethtool -S {sh(device)} | grep allowance   # on the node, again under load",
                        ),
                    )


@check(Area.EFA, Severity.WARNING, needs=("Node", Need.NODES))
def rdma_port_down(cluster: Cluster) -> Problems:
    """Pods hold queue pairs on an RDMA port that is not active.

    Looks at the state of each port (/sys/class/infiniband) and at the processes that hold queue pairs on its device (`rdma`
    netlink), in the nodes' reports.

    Why: nothing moves over that port. A collective waits for it until its time-out, or goes on with fewer devices. A warning:
    a job may have opened a device that it does not use.

    Source: https://docs.kernel.org/admin-guide/abi-stable.html (sysfs-class-infiniband)
    """
    for report in cluster.reports:
        for device in report.fabric.devices if report.fabric is not None else ():
            held = sum(number for _, number in device.users or ())
            for port in device.ports:
                if held and port.state not in ("", "ACTIVE"):
                    yield Problem(
                        f"{device.name} port {port.number} is {port.state}, and processes hold {held} queue pairs on it",
                        ObjectRef("Node", report.node),
                        (
                            on_node(
                                report.node,
                                f"the state of the port is {port.state}",
                                port.state,
                                field=f"{device.name}/ports/{port.number}/state",
                            ),
                        ),
                        Remedy(
                            "Look at the cable, the switch's port, the subnet manager (InfiniBand) or the driver's messages.",
                            command=f"kubectl genainet fabric node/{sh(report.node)} -o wide",
                        ),
                    )
