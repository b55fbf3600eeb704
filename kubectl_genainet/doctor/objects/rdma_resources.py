"""Which extended resources are RDMA devices, as the configuration of their device plugins tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.objects.raw import at, items, json_in, mapping, text
from kubectl_genainet.model.cluster import ClusterSnapshot

_SHARED_PREFIX = "rdma"  # of the shared device plugin, where resourcePrefix is absent


@dataclass(frozen=True, slots=True)
class RdmaResources:
    """Resources by name, or by the part behind the slash where the prefix is an operator's own: whether they are RDMA."""

    told: dict[str, bool]

    def says(self, resource: str) -> bool | None:
        """Whether a resource is RDMA; None where no configuration is about it."""
        by_name = self.told.get(resource)
        return self.told.get(resource.rpartition("/")[2]) if by_name is None else by_name


def rdma_resources(snapshot: ClusterSnapshot) -> RdmaResources:
    """What SriovNetworkNodePolicies, NicClusterPolicies and the ConfigMaps of the SR-IOV and the shared device plugin say.

    One of several that speak of a resource is enough to make it RDMA.

    Sources: https://github.com/k8snetworkplumbingwg/sriov-network-operator#sriovnetworknodepolicy,
    https://github.com/k8snetworkplumbingwg/sriov-network-device-plugin#configurations,
    https://github.com/Mellanox/k8s-rdma-shared-dev-plugin#rdma-shared-device-plugin-configurations
    """
    told: dict[str, bool] = {}
    for name, is_rdma in (*_of_policies(snapshot), *_of_plugins(snapshot)):
        if name:
            told[name] = told.get(name, False) or is_rdma
    return RdmaResources(told)


def _of_policies(snapshot: ClusterSnapshot) -> Iterator[tuple[str, bool]]:
    for policy in snapshot.of("SriovNetworkNodePolicy", "sriovnetwork.openshift.io"):
        yield text(policy.raw, "spec", "resourceName"), at(policy.raw, "spec", "isRdma") is True


def _of_plugins(snapshot: ClusterSnapshot) -> Iterator[tuple[str, bool]]:
    for config_map in snapshot.of("ConfigMap", ""):
        for value in mapping(config_map.raw, "data").values():
            if isinstance(value, str) and ('"configList"' in value or '"resourceList"' in value):
                yield from _of_config(json_in(value))
    for policy in snapshot.of("NicClusterPolicy", "mellanox.com"):
        for plugin in ("rdmaSharedDevicePlugin", "sriovDevicePlugin"):
            yield from _of_config(json_in(text(policy.raw, "spec", plugin, "config")))


def _of_config(config: Any) -> Iterator[tuple[str, bool]]:
    for shared in items(config, "configList"):
        if text(shared, "resourceName") and "rdmaHcaMax" in shared:
            yield f"{text(shared, 'resourcePrefix') or _SHARED_PREFIX}/{text(shared, 'resourceName')}", True
    for pool in items(config, "resourceList"):
        if name := text(pool, "resourceName"):
            prefix, selectors = text(pool, "resourcePrefix"), at(pool, "selectors")
            alternatives = selectors if isinstance(selectors, list) else [selectors]
            yield f"{prefix}/{name}" if prefix else name, any(at(s, "isRdma") is True for s in alternatives)
