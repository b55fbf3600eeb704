"""`mtu-mismatch`: what counts as a pod's size, and which tunnels it has to fit."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.model.finding import Finding
from kubectl_genainet.model.node import Device, Route
from tests.unit.doctor.faults.case import known
from tests.unit.doctor.worlds.clusters import kubeadm
from tests.unit.doctor.worlds.world import World, change_netns, meta

HERE, THERE = 1, 2  # worker1 and worker2, as the reports are in order


def mismatches(world: World) -> list[Finding]:
    return [f for f in world.report().findings if f.check == "mtu-mismatch"]


def with_tunnel(world: World, tunnel: Device, *routes: Route) -> None:
    for index, report in enumerate(world.reports):
        host = report.namespaces[0]
        default = Route("0.0.0.0/0", "eth0", "192.168.10.1")
        change_netns(world, index, 0, devices=(*host.devices, tunnel), routes=(default, *routes))


def pods_with(world: World, node: int, mtu: int, route_mtu: int = 0) -> None:
    for number, netns in enumerate(world.reports[node].namespaces[1:], start=1):
        devices = tuple(msgspec.structs.replace(d, mtu=mtu) if d.name == "eth0" else d for d in netns.devices)
        routes = (Route("0.0.0.0/0", "eth0", "169.254.1.1", route_mtu),)
        change_netns(world, node, number, devices=devices, routes=routes)


def addresses(world: World, node: int) -> list[str]:
    return [ip for netns in world.reports[node].namespaces[1:] for ip in netns.addresses]


FLANNEL = Device(name="flannel.1", ifindex=90, mtu=1450, kind="vxlan")
FLANNEL_TOO_LARGE = msgspec.structs.replace(FLANNEL, mtu=1500)
FELIX = {"apiVersion": "crd.projectcalico.org/v1", "kind": "FelixConfiguration", "metadata": meta("default")}


def small_uplinks(world: World, mtu: int) -> None:
    for index, report in enumerate(world.reports):
        host = report.namespaces[0]
        devices = tuple(msgspec.structs.replace(d, mtu=mtu) if d.name == "eth0" else d for d in host.devices)
        change_netns(world, index, 0, devices=devices)


@pytest.mark.parametrize(("peer", "found"), [(1500, 1), (1450, 0)])
def test_a_pod_has_to_fit_the_tunnel_to_pods_as_large(peer: int, found: int) -> None:
    """Of two ends the smaller size counts: pods that another plugin made here are no fault beside Flannel's."""
    world = known(kubeadm)()
    with_tunnel(world, FLANNEL, *(Route(f"{ip}/32", "flannel.1") for ip in addresses(world, THERE)))
    pods_with(world, THERE, peer)
    titles = [f.title for f in mismatches(world) if str(f.object) == "Node worker1"]
    assert len(titles) == found
    assert all("has MTU 1500" in title or "have MTU 1500" in title for title in titles)


def test_pods_of_which_no_tunnel_is_the_way_may_be_as_large_as_the_uplink() -> None:
    world = known(kubeadm)()
    with_tunnel(world, FLANNEL, Route("10.99.0.0/16", "flannel.1"))
    assert mismatches(world) == []


@pytest.mark.parametrize(("routed", "found"), [((), 2), ((Route("10.99.0.0/16", "wg0"),), 0)])
def test_a_wireguard_device_with_a_table_of_its_own_is_in_the_way(routed: tuple[Route, ...], found: int) -> None:
    world = known(kubeadm)()
    with_tunnel(world, Device(name="wg0", ifindex=90, mtu=1440, kind="wireguard"), *routed)
    assert len(mismatches(world)) == found


@pytest.mark.parametrize(
    ("kind", "mtu", "external", "route_mtu", "found"),
    [
        ("vxlan", 1500, True, 1450, 0),  # Cilium's, with the pods' routes made for it
        ("geneve", 65000, True, 1450, 0),  # Open vSwitch's
        ("vxlan", 1500, True, 0, 2),
        ("vxlan", 1500, False, 1450, 3),
    ],
)
def test_a_tunnel_that_a_program_sends_by_is_measured_at_the_pods_routes(
    kind: str, mtu: int, external: bool, route_mtu: int, found: int
) -> None:
    world = known(kubeadm)()
    with_tunnel(world, Device(name="tunnel0", ifindex=90, mtu=mtu, kind=kind, external=external))
    for node in range(len(world.reports)):
        pods_with(world, node, 1500, route_mtu)
    assert len(mismatches(world)) == found


def commands_of(world: World) -> set[str]:
    return {f.remedy.command for f in mismatches(world) if f.remedy is not None}


@pytest.mark.parametrize(
    ("kind", "field"), [("vxlan", "vxlanMTU"), ("ipip", "ipipMTU"), ("wireguard", "wireguardMTU"), ("geneve", "")]
)
def test_calicos_tunnel_is_made_smaller_by_its_own_field(kind: str, field: str) -> None:
    world = known(kubeadm)()
    world.remove("ConfigMap", "calico-config", "kube-system")
    with_tunnel(world, Device(name="tunnel0", ifindex=90, mtu=1500, kind=kind))
    found = [f for f in mismatches(world) if f.title.startswith("tunnel")]
    assert found
    for finding in found:
        assert finding.remedy is not None
        assert (f'"{field}": ' in finding.remedy.command) if field else not finding.remedy.command
        assert ("ipipMTU, vxlanMTU or wireguardMTU" in finding.remedy.text) == (not field)


@pytest.mark.parametrize(
    ("pool", "felix", "told"),
    [
        ({"ipipMode": "Always"}, {}, '{"spec": {"ipipMTU": 1480}}'),
        ({"vxlanMode": "CrossSubnet"}, {}, '{"spec": {"vxlanMTU": 1480}}'),
        ({}, {"wireguardEnabled": True}, '{"spec": {"wireguardMTU": 1480}}'),
        ({}, {}, ""),
    ],
)
def test_calicos_pods_are_made_smaller_by_what_its_pools_encapsulate_with(
    pool: dict[str, str], felix: dict[str, bool], told: str
) -> None:
    world = known(kubeadm)()
    world.remove("ConfigMap", "calico-config", "kube-system")
    world.get("IPPool", "default-ipv4-ippool", "")["spec"] |= {"ipipMode": "Never", "vxlanMode": "Never", **pool}
    world.add({**FELIX, "spec": felix})
    small_uplinks(world, 1480)
    assert {told in command if told else not command for command in commands_of(world)} == {True}


@pytest.mark.parametrize("told_by", ["ConfigMap", "Installation"])
def test_what_makes_felixs_variables_goes_before_felix(told_by: str) -> None:
    """Felix takes FELIX_VXLANMTU of its DaemonSet before its own object, which the operator and calico-config fill."""
    world = known(kubeadm)()
    if told_by == "Installation":
        world.add({"apiVersion": "operator.tigera.io/v1", "kind": told_by, "metadata": meta("default"), "spec": {}})
    with_tunnel(world, FLANNEL_TOO_LARGE)
    field = '"veth_mtu": "1450"' if told_by == "ConfigMap" else '"calicoNetwork": {"mtu": 1450}'
    assert {field in command for command in commands_of(world)} == {True}
