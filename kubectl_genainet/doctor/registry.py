"""All checks, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.doctor.check import Area, Check
from kubectl_genainet.doctor.families.addresses import cni, ebpf, ip_space, mtu, pod_ip, vpc_cni
from kubectl_genainet.doctor.families.dns import coredns, coredns_cpu, lookups, nodelocal
from kubectl_genainet.doctor.families.entry import (
    exposure,
    gateway,
    gateway_streams,
    health_checks,
    inference_pools,
    ingress,
    ingress_paths,
    ingress_rewrite,
    ingress_streams,
    nlb,
    openshift_routes,
    route_attach,
    serving_streams,
)
from kubectl_genainet.doctor.families.entry.mesh import istio_routes
from kubectl_genainet.doctor.families.entry.mesh import jobs as mesh_jobs
from kubectl_genainet.doctor.families.entry.mesh import policy as mesh_policy
from kubectl_genainet.doctor.families.entry.mesh import sidecars as mesh
from kubectl_genainet.doctor.families.entry.mesh import streams as mesh_streams
from kubectl_genainet.doctor.families.entry.mesh import waypoint as mesh_waypoint
from kubectl_genainet.doctor.families.entry.nginx import pods as nginx_pods
from kubectl_genainet.doctor.families.entry.traefik import backends as traefik_backends
from kubectl_genainet.doctor.families.nodes import (
    dra,
    efa,
    exclusive,
    fabric,
    gke_networks,
    gpu_nodes,
    gpu_traffic,
    multinode,
    nccl,
    placement,
    rdma,
    sriov,
    tpu,
)
from kubectl_genainet.doctor.families.nodes import packets as node_packets
from kubectl_genainet.doctor.families.policies import (
    cilium_names,
    coverage,
    credentials,
    global_policy,
    job_peers,
    outside,
    policy,
    refused,
)
from kubectl_genainet.doctor.families.policies import peers as policy_peers
from kubectl_genainet.doctor.families.policies import ports as policy_ports
from kubectl_genainet.doctor.families.policies import traffic as policy_traffic
from kubectl_genainet.doctor.families.services import (
    calls,
    external_names,
    grpc_balance,
    health,
    host_ports,
    kube_proxy,
    kube_proxy_latency,
    listening,
    mixed_backends,
    nlb_health,
    node_ports,
    probe_paths,
    service_variables,
    services,
    serving_port,
)
from kubectl_genainet.model.target import not_found

_FAMILIES = (
    cni,
    mtu,
    pod_ip,
    node_packets,
    services,
    external_names,
    calls,
    service_variables,
    serving_port,
    listening,
    mixed_backends,
    grpc_balance,
    host_ports,
    node_ports,
    multinode,
    exposure,
    nlb,
    health,
    probe_paths,
    nlb_health,
    health_checks,
    ingress,
    ingress_paths,
    ingress_rewrite,
    ingress_streams,
    nginx_pods,
    openshift_routes,
    traefik_backends,
    gateway,
    inference_pools,
    route_attach,
    gateway_streams,
    serving_streams,
    istio_routes,
    mesh,
    mesh_policy,
    mesh_streams,
    mesh_waypoint,
    mesh_jobs,
    coverage,
    policy,
    outside,
    job_peers,
    credentials,
    policy_ports,
    policy_peers,
    policy_traffic,
    refused,
    global_policy,
    cilium_names,
    kube_proxy,
    kube_proxy_latency,
    ip_space,
    vpc_cni,
    ebpf,
    sriov,
    rdma,
    exclusive,
    dra,
    coredns,
    coredns_cpu,
    nodelocal,
    lookups,
    placement,
    tpu,
    efa,
    nccl,
    fabric,
    gpu_traffic,
    gke_networks,
    gpu_nodes,
)


def all_checks() -> tuple[Check, ...]:
    """Every check of every family, areas in the report's order."""
    checks = [v for family in _FAMILIES for v in vars(family).values() if isinstance(v, Check)]
    order = list(Area)
    return tuple(sorted(checks, key=lambda c: order.index(c.area)))


def chosen(only: Sequence[Area | str]) -> tuple[Check, ...]:
    """The checks of some areas and those of some names; all where nothing is named."""
    return tuple(c for c in all_checks() if not only or c.area in only or c.name in only)


def names_of_checks() -> list[str]:
    """What `area_or_check` takes."""
    return [*(area.value for area in Area), *(check.name for check in all_checks())]


def area_or_check(name: str) -> Area | str:
    """What a name stands for. Raises InputError for what is neither an area nor a check."""
    if name in {area.value for area in Area}:
        return Area(name)
    if check_named(name) is None:
        raise not_found("area or check", name, names_of_checks())
    return name


def check_named(name: str) -> Check | None:
    return next((c for c in all_checks() if c.name == name), None)
