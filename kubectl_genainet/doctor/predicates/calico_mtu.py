"""The MTU that Calico is told, and by which field it is told another."""

from __future__ import annotations

import json

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.platform import config_map
from kubectl_genainet.doctor.objects.raw import at, command, patch, text
from kubectl_genainet.model.finding import ObjectRef

# Felix's field for each encapsulation. Source: https://docs.tigera.io/calico/latest/reference/resources/felixconfig
_FELIX = {"ipip": "ipipMTU", "vxlan": "vxlanMTU", "wireguard": "wireguardMTU"}
CHOICE = "By what Calico encapsulates with it is ipipMTU, vxlanMTU or wireguardMTU of the FelixConfiguration."


def calico_mtu(cluster: Cluster) -> tuple[ObjectRef, str, str] | None:
    """(object, field, MTU) as Calico is told it: by its operator's Installation, or by calico-config."""
    for installation in cluster.snapshot.of("Installation", "operator.tigera.io"):
        value = text(installation.raw, "spec", "calicoNetwork", "mtu")
        if value:
            return installation.ref, "spec.calicoNetwork.mtu", value
    config = config_map(cluster.snapshot, "calico-config")
    return (config.ref, "data[veth_mtu]", text(config.raw, "data", "veth_mtu")) if config else None


def change(where: ObjectRef, mtu: int) -> str:
    """Gives an Installation or calico-config another MTU."""
    told = {"data": {"veth_mtu": str(mtu)}} if where.kind == "ConfigMap" else {"spec": {"calicoNetwork": {"mtu": mtu}}}
    return patch(where, told)


def set_calico_mtu(cluster: Cluster, mtu: int, tunnel: str = "") -> str:
    """The command that gives Calico's tunnels and pods an MTU; empty where nothing tells which field it takes. `tunnel` is the
    kind of the tunnel that is too large. The variables that the operator and calico-config make go before Felix's own fields."""
    installed = next(iter(cluster.snapshot.of("Installation", "operator.tigera.io")), None)
    if installed is not None:
        return change(installed.ref, mtu)
    told = calico_mtu(cluster)
    if told is not None and told[2]:
        return change(told[0], mtu)
    kinds = {tunnel} if tunnel else _encapsulations(cluster)
    fields = {_FELIX[kind]: mtu for kind in sorted(kinds & _FELIX.keys())}
    felix = ("felixconfiguration", "default", "--type=merge", "-p")
    return command("kubectl", "patch", *felix, json.dumps({"spec": fields})) if fields else ""


def _encapsulations(cluster: Cluster) -> set[str]:
    """What Calico encapsulates with: by its pools, and WireGuard by Felix."""
    pools = cluster.snapshot.of("IPPool")
    modes = {m for m in ("ipip", "vxlan") for p in pools if text(p.raw, "spec", f"{m}Mode") not in ("", "Never")}
    calico = cluster.cni("Calico")
    felix = cluster.snapshot.of("FelixConfiguration")
    encrypts = any(
        at(o.raw, "spec", name) is True for o in felix for name in ("wireguardEnabled", "wireguardEnabledV6")
    )
    return modes | ({calico.encapsulation} if calico is not None else set()) | ({"wireguard"} if encrypts else set())
