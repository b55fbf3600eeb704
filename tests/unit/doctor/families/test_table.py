"""The faults of the whole table at once: a chatbot cluster with many of them gives exactly their findings.

Each cluster takes the faults that can stand beside each other; where one would hide another (a Service without
endpoints has no port to judge), they are in different clusters. A check that no cluster covers has its fault made alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.model.node import Device, Listener
from tests.unit.doctor.faults.case import Case, known
from tests.unit.doctor.faults.cases import CASES
from tests.unit.doctor.faults.dns import measured, nodelocal
from tests.unit.doctor.faults.entry import eks_alb
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm, training
from tests.unit.doctor.worlds.knowledge import knowledge
from tests.unit.doctor.worlds.world import World, change_netns

BY_NAME = {case.name: case for case in CASES}


def whole_eks() -> World:
    """With training nodes, what the nodes know, and DNS as measured."""
    world = eks()
    training(world)
    knowledge(world, 9001)
    world.dns.append(measured())
    return world


def whole_kubeadm() -> World:
    """With NodeLocal DNSCache, its device and its socket on every node."""
    world = kubeadm()
    nodelocal(world)
    knowledge(world)
    for index, report in enumerate(world.reports):
        host = report.namespaces[0]
        cache = Device(name="nodelocaldns", ifindex=50, mtu=1500, kind="dummy", addresses=("169.254.20.10",))
        listens = (Listener("169.254.20.10", 53),)
        change_netns(world, index, 0, devices=(*host.devices, cache), udp_listeners=listens)
    return world


WHOLE = (whole_eks, whole_kubeadm, known(gke))


@dataclass(frozen=True)
class Faults:
    """A cluster and the names of the faults that are made in it, in this order; `ends` is what they put an end to."""

    base: Callable[[], World]
    names: tuple[str, ...]
    ends: frozenset[str] = frozenset()

    @property
    def cases(self) -> list[Case]:
        return [BY_NAME[name] for name in self.names]


TOGETHER = (
    Faults(
        whole_eks,
        (
            "leftover_weave",
            "aws_node_down",
            "uplink_smaller_than_pods",
            "eni_mtu_out_of_range",
            "pod_stuck_without_address",
            "address_not_in_the_namespace",
            "veth_peer_gone",
            "no_default_route",
            "selector_with_a_typo",
            "named_port_unknown",
            "no_endpoint_is_ready",
            "external_name_is_an_address",
            "nlb_without_an_address",
            "target_type_absent",
            "controller_not_installed",
            "idle_timeout_left_at_350_s",
            "targets_in_one_zone",
            "no_readiness_probe",
            "health_check_left_at_tcp",
            "load_balancer_gives_up_early",
            "qdrant_without_a_policy",
            "policy_for_nobody",
            "egress_without_dns",
            "policy_names_the_services_port",
            "rule_for_a_client_that_does_not_exist",
            "egress_forgets_the_model",
            "load_balancer_keeps_away_from_nodes",
            "kube_proxy_not_ready",
            "no_addresses_left",
            "no_prefix_left",
            "node_is_full",
            "no_warm_interface",
            "ipv6_without_prefixes",
            "subnet_nearly_used_up",
            "dropped_by_a_tc_program",
            "one_replica",
            "dns_on_one_node",
            "dns_with_a_cpu_limit",
            "corefile_without_metrics",
            "servfail",
            "nxdomain_storm",
            "slow_dns",
            "sixty_nodes_without_a_cache",
            "five_second_stalls",
            "measured_waste",
            "training_over_zones",
            "training_over_placements",
            "node_without_efa",
            "efa_plugin_not_ready",
            "efa_without_huge_pages",
            "nccl_on_a_device_that_pods_lack",
            "group_without_itself",
            "device_plugin_missing",
            "no_gpu_left",
            "taint_not_tolerated",
        ),
    ),
    Faults(
        whole_eks,
        (
            "connections_over_the_instances_allowance",
            "port_down_under_a_job",
            "server_on_another_port",
            "external_name_maps_a_port",
            "in_tree_nlb",
            "readiness_by_tcp",
            "startup_probe_kills_the_loading_model",
            "policy_agent_off",
            "egress_forgets_a_call_that_only_a_policy_tells_of",
            "dropped_although_admitted",
            "policy_for_everyone",
            "api_on_the_internet_not_admitted",
            "api_admitted_by_address",
            "more_pods_than_addresses",
            "dns_not_ready",
            "external_name_with_ndots_5",
            "any_zone_will_do",
        ),
    ),
    Faults(
        whole_eks,
        (
            "server_on_loopback",
            "no_readiness_gate",
            "zone_without_an_eniconfig",
            "strict_agent_and_no_policy",
        ),
    ),
    Faults(
        whole_kubeadm,
        (
            "flannel_vxlan",
            "one_node_with_jumbo_frames",
            "forwarding_switched_off",
            "conntrack_full",
            "cni_not_initialised",
            "model_on_a_node_port",
            "qdrant_to_the_world",
            "ingress_to_no_service",
            "ingress_of_an_unknown_class",
            "tls_secret_missing",
            "canary_without_a_main_ingress",
            "model_with_a_sidecar",
            "injection_wanted_and_not_done",
            "cilium_policy_under_calico",
            "misspelt_policy_type",
            "rules_lag_for_a_minute",
            "a_sync_takes_seconds",
            "twenty_thousand_rules",
            "rules_for_an_endpoint_that_is_gone",
            "conntrack_races",
            "rule_of_a_hardening_script",
            "fragmentation_needed_is_not_told",
            "strict_filter_and_another_way_back",
            "queue_is_full",
            "dual_stack_service_with_one_family",
            "traffic_past_the_kernel",
            "network_that_does_not_exist",
            "no_autoscaler",
            "resolver_of_its_own",
        ),
        frozenset({"policy-blocks-outside"}),  # whom the misspelt policy admits is not known
    ),
    Faults(
        whole_kubeadm,
        (
            "tokens_are_buffered",
            "model_in_ambient",
            "nodes_use_another_mode",
            "cache_without_its_address",
        ),
    ),
    Faults(whole_kubeadm, ("streams_cut_after_a_minute",)),
    Faults(
        known(gke),
        (
            "gateway_not_programmed",
            "route_refused",
            "route_to_no_pool",
            "route_without_a_grant",
            "route_cuts_streams",
            "pool_without_pods",
            "names_in_a_policy",
            "names_without_the_dns_rule",
            "range_smaller_than_the_pod_limit",
            "kube_proxy_beside_cilium",
        ),
    ),
    Faults(known(gke), ("rules_left_behind",)),
    Faults(known(kubeadm), ("cache_asked_and_not_there",)),
    Faults(
        eks_alb,
        (
            "two_pods_one_address",
            "udp_service_of_a_tcp_port",
            "alb_to_instances",
            "efa_in_use",
        ),
    ),
    Faults(kubeadm, ("a_thousand_services_in_iptables",)),
    Faults(kubeadm, ("unknown_scheduler",)),
    Faults(kubeadm, ("ipvs_modules_missing",)),
    *(
        Faults(BY_NAME[name].base, (name,), frozenset({"efa-invisible"}))
        for name in ("efa_not_requested", "rdma_without_locked_memory", "device_files_of_the_node")
    ),
)
COVERED = {case.check for faults in TOGETHER for case in faults.cases}
CLUSTERS = (*TOGETHER, *(Faults(case.base, (case.name,)) for case in CASES if case.check not in COVERED))


@pytest.mark.parametrize("base", WHOLE, ids=["eks", "kubeadm", "gke"])
def test_a_sound_cluster_of_which_all_is_known_gives_no_finding(base: Callable[[], World]) -> None:
    found = [(f.check, str(f.object)) for f in base().report().findings]
    # That EFA can't be seen is no fault, and has to be said.
    assert found == ([("efa-invisible", "StatefulSet chatbot/llama-train")] if base is whole_eks else [])


@pytest.mark.parametrize("faults", CLUSTERS, ids=lambda f: f"{len(f.names)}-{f.names[0]}")
def test_all_faults_of_a_cluster_give_exactly_their_findings(faults: Faults) -> None:
    world = faults.base()
    wanted = {f.check for f in world.report().findings}
    for case in faults.cases:
        case.fault(world)
        wanted |= {case.check, *case.also}
    findings = world.report().findings
    assert {f.check for f in findings} == wanted - faults.ends
    objects = {(f.check, str(f.object)) for f in findings}
    assert {(case.check, case.object) for case in faults.cases} - objects == set()


def test_the_clusters_together_have_a_fault_for_every_check() -> None:
    assert {case.check for faults in CLUSTERS for case in faults.cases} == {check.name for check in all_checks()}
