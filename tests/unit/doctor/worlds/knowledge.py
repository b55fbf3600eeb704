"""What agents report of the nodes of a cluster: devices, routes, sockets, rules."""

from __future__ import annotations

from kubectl_genainet.model.node import Device, KubeProxyState, Latency, Listener, NetNs, NodeReport, Route, RulesetDump
from kubectl_genainet.proxy.names import iptables_endpoint_chain, iptables_service_chain
from tests.unit.doctor.worlds.world import (
    Raw,
    World,
)


def knowledge(world: World, mtu: int = 1500) -> None:
    """What agents would report of a sound cluster: namespaces, devices, routes, sysctls, kube-proxy's rules."""
    for found in world.of("Node"):
        name, ip = found["metadata"]["name"], found["status"]["addresses"][0]["address"]
        pods = [p for p in world.of("Pod") if p["spec"]["nodeName"] == name and not p["spec"].get("hostNetwork")]
        veths = [
            Device(name=f"cali{i}", ifindex=100 + i, mtu=mtu, kind="veth", peer_ifindex=3) for i, _ in enumerate(pods)
        ]
        host = NetNs(
            inode=4026531840,
            host=True,
            conntrack_count=1200,
            conntrack_max=262144,
            sysctls={"net.ipv4.ip_forward": "1"},
            devices=(Device(name="eth0", ifindex=2, mtu=mtu, addresses=(ip,)), *veths),
        )
        namespaces = [host] + [
            NetNs(
                inode=4026532000 + i,
                host=False,
                pod_uids=(p["metadata"]["uid"],),
                devices=(
                    Device(name="lo", ifindex=1, mtu=65536, addresses=("127.0.0.1",)),
                    Device(
                        name="eth0",
                        ifindex=3,
                        mtu=mtu,
                        kind="veth",
                        addresses=(p["status"]["podIP"],),
                        peer_ifindex=100 + i,
                        peer_netns=host.inode,
                    ),
                ),
                routes=(Route("0.0.0.0/0", "eth0", "169.254.1.1"), Route("169.254.1.1/32", "eth0")),
                tcp_listeners=listeners(p, "TCP"),
                udp_listeners=listeners(p, "UDP"),
            )
            for i, p in enumerate(pods)
        ]
        own = ("DaemonSet", "kube-system", "kube-proxy") in world.objects
        proxy = (
            KubeProxyState(mode="iptables", syncs=Latency(5200, 0.016), programming=Latency(900, 0.5)) if own else None
        )
        world.reports.append(NodeReport(node=name, t_ns=1, namespaces=tuple(namespaces), kube_proxy=proxy))
        if own:
            world.rulesets.append(RulesetDump(node=name, t_ns=1, source="iptables-nft", text=iptables(world)))


def listeners(pod: Raw, protocol: str) -> tuple[Listener, ...]:
    """As a server opens what its container declares: on all addresses of both families."""
    ports = [p for c in pod["spec"]["containers"] for p in c.get("ports", ())]
    return tuple(Listener("::", p["containerPort"]) for p in ports if p.get("protocol", "TCP") == protocol)


def iptables(world: World) -> str:
    """kube-proxy's nat table for the Services and slices of a world."""
    services, chains, rules = [], ["KUBE-SERVICES", "KUBE-MARK-MASQ"], []
    for service in world.of("Service"):
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        found = world.get("EndpointSlice", f"{name}-x7k2p", namespace)
        for index, port in enumerate(service["spec"]["ports"]):
            full = f"{namespace}/{name}" + (f":{port['name']}" if port.get("name") else "")
            protocol = port.get("protocol", "TCP").lower()
            chain = iptables_service_chain(full, protocol)
            chains.append(chain)
            services.append(
                f"-A KUBE-SERVICES -d {service['spec']['clusterIP']}/32 -p {protocol} -m comment --comment "
                f'"{full} cluster IP" -m {protocol} --dport {port["port"]} -j {chain}'
            )
            endpoints = [e["addresses"][0] for e in found["endpoints"]]
            for i, ip in enumerate(endpoints):
                address = f"{ip}:{found['ports'][index]['port']}"
                sep = iptables_endpoint_chain(full, protocol, address)
                chains.append(sep)
                left = len(endpoints) - i
                dice = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
                rules.append(f'-A {chain} -m comment --comment "{full} -> {address}" {dice}-j {sep}')
                rules.append(f'-A {sep} -s {ip}/32 -m comment --comment "{full}" -j KUBE-MARK-MASQ')
                rules.append(
                    f'-A {sep} -p {protocol} -m comment --comment "{full}" -m {protocol} -j DNAT '
                    f"--to-destination {address}"
                )
    heads = [f":{c} - [0:0]" for c in chains]
    builtin = [":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":POSTROUTING ACCEPT [0:0]"]
    jumps = [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    ]
    return "\n".join(["*nat", *builtin, *heads, *jumps, *services, *rules, "COMMIT", ""])
