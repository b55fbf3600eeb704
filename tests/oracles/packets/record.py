"""What policy enforcers do to real packets, recorded: `python -m tests.oracles.packets.record RECORDING PROGRAM` (as root).

The packets go through one node, on which PROGRAM runs, between pods that are network namespaces
(tests/cluster/harness/bare_node.py), of an API server without controllers. The programs:

kube-network-policies, kube-network-policies-ipv6: the folder of the former name beside this file pins the module:
`go build -mod=readonly -o PROGRAM sigs.k8s.io/kube-network-policies/cmd`.

calico: Felix of Calico's repository (commit 87c15906), `CGO_ENABLED=0 go build -o PROGRAM ./felix/cmd/calico-felix`, with the
functions of felix/bpf that stand in for libbpf returning an error in place of a panic: when it starts, Felix looks for BPF
programs to remove. GENAINET_CALICO_CRDS is the folder api/config/crd of the repository. It writes nftables: with iptables it
ends at a rule that has both protocol and notProtocol, which iptables-restore refuses.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness.api import Api, ApiError
from tests.cluster.harness.bare_node import BareNode, Packets, reached
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.crds import definitions
from tests.cluster.harness.processes import Daemon, remove_leftovers
from tests.oracles.packets.clusters import (
    NODE,
    NODE6,
    OUTSIDE,
    OUTSIDE6,
    PORTS,
    Cluster,
    Raw,
    calico_clusters,
    digest,
    plain_clusters,
    plain_clusters_of_ipv6,
)

_ADMINISTRATORS = "policy.networking.k8s.io"
_PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "GlobalNetworkPolicy": "globalnetworkpolicies",
    "AdminNetworkPolicy": "adminnetworkpolicies",
    "BaselineAdminNetworkPolicy": "baselineadminnetworkpolicies",
    "ClusterNetworkPolicy": "clusternetworkpolicies",
    "NetworkSet": "networksets",
    "GlobalNetworkSet": "globalnetworksets",
}
_OF_THE_CLUSTER = ("Pod", "Namespace", "Node")  # made by other means


# nft's `queue` is not in every kernel, iptables' NFQUEUE mostly is: the same packets to the same queue. Rules and their order
# are those that kube-network-policies makes for the administrators' kinds; its own fail as one where nft has no queue.
_QUEUE = (
    "-m owner --uid-owner 0 -j ACCEPT",
    "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-j NFQUEUE --queue-num 100",
)


def _start_kube_network_policies(node: BareNode, program: str) -> Daemon:
    plane = node.plane
    folder = plane.folder / "account"
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(plane.tokens["admin"])
    (folder / "ca.crt").write_bytes(plane.ca.read_bytes())
    for command in ("iptables", "ip6tables"):
        if command == "ip6tables":  # neighbour discovery goes by no policy
            node.netns.run(command, "-t", "mangle", "-A", "POSTROUTING", "-p", "ipv6-icmp", "-j", "ACCEPT")
        for rule in _QUEUE:
            node.netns.run(command, "-t", "mangle", "-A", "POSTROUTING", *rule.split())
    place = "/run/secrets/kubernetes.io"
    script = (
        f"mount -t tmpfs tmpfs /run && mkdir -p {place} && ln -s {folder} {place}/serviceaccount && exec {program} "
    )
    script += f"--admin-network-policy --baseline-admin-network-policy --hostname-override={node.name} --disable-nri 2>/dev/null"
    env = {"KUBERNETES_SERVICE_HOST": plane.ip, "KUBERNETES_SERVICE_PORT": "6443"}
    argv = ["unshare", "--mount", "sh", "-c", script]
    return Daemon("knp", argv, plane.folder / "knp.log", netns=node.netns, env=env)


_READY: Raw = {  # what Calico's controller makes
    "apiVersion": "projectcalico.org/v3",
    "kind": "ClusterInformation",
    "metadata": {"name": "default"},
    "spec": {"clusterGUID": "0", "datastoreReady": True, "calicoVersion": "v3.34.0"},
}


def _start_felix(node: BareNode, program: str) -> Daemon:
    plane = node.plane
    config = plane.folder / "felix.yaml"
    server = {"server": f"https://{plane.ip}:6443", "insecure-skip-tls-verify": True}
    raw = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"token": plane.tokens["admin"]}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    config.write_text(json.dumps(raw))
    env = {
        "DATASTORE_TYPE": "kubernetes",
        "FELIX_DATASTORETYPE": "kubernetes",
        "CALICO_API_GROUP": "projectcalico.org/v3",
        "KUBECONFIG": str(config),
        "FELIX_FELIXHOSTNAME": node.name,
        "FELIX_INTERFACEPREFIX": "cali",
        "FELIX_DEFAULTENDPOINTTOHOSTACTION": "Accept",  # what runs on the node is not closed by a default
        "FELIX_NFTABLESMODE": "Enabled",
        "FELIX_XDPENABLED": "false",
        "FELIX_LOGFILEPATH": "none",
        "FELIX_LOGSEVERITYSYS": "none",
        "FELIX_LOGSEVERITYSCREEN": "warning",
        "FELIX_PROMETHEUSMETRICSENABLED": "false",
        "FELIX_USAGEREPORTINGENABLED": "false",
    }
    _create(plane.api(), [_READY])
    daemon = Daemon("felix", [program], plane.folder / "felix.log", netns=node.netns, env=env)
    deadline = time.monotonic() + 60
    while "cali-FORWARD" not in node.netns.run("nft", "list", "ruleset"):
        daemon.check()
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.5)
    return daemon


def _administrators() -> list[Raw]:
    return [d for d in definitions() if d["spec"]["group"] == _ADMINISTRATORS]


def _of_calico() -> list[Raw]:
    folder = Path(os.environ["GENAINET_CALICO_CRDS"])
    own = [d for file in sorted(folder.glob("*.yaml")) for d in yaml.safe_load_all(file.read_text()) if d]
    names = {d["metadata"]["name"] for d in own}
    return own + [d for d in _administrators() if d["metadata"]["name"] not in names]


def _caches_follow(node: BareNode) -> None:
    """It decides by its caches, which follow the API at once, and shows nowhere that they have."""
    time.sleep(2.0)


def _rules_rest(node: BareNode) -> None:
    """Waits until the node's rules have been the same for five seconds."""
    before, since = "", time.monotonic()
    while time.monotonic() - since < 5:
        rules = node.netns.run("nft", "--stateless", "list", "ruleset")
        if rules != before:
            before, since = rules, time.monotonic()
        time.sleep(0.5)


@dataclass(frozen=True)
class Recording:
    """How one recording is made. `settle` waits until the enforcer has followed the API."""

    clusters: Callable[[], list[Cluster]]
    start: Callable[[BareNode, str], Daemon]
    definitions: Callable[[], list[Raw]]
    settle: Callable[[BareNode], None]


RECORDINGS = {
    "kube-network-policies": Recording(plain_clusters, _start_kube_network_policies, _administrators, _caches_follow),
    "kube-network-policies-ipv6": Recording(
        plain_clusters_of_ipv6, _start_kube_network_policies, _administrators, _caches_follow
    ),
    "calico": Recording(calico_clusters, _start_felix, _of_calico, _rules_rest),
}


def recorded_in(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.json")


def _path(obj: Raw) -> str:
    meta = obj["metadata"]
    root = f"/apis/{obj['apiVersion']}" if "/" in obj["apiVersion"] else f"/api/{obj['apiVersion']}"
    place = f"{root}/namespaces/{meta['namespace']}" if "namespace" in meta else root
    return f"{place}/{_PLURALS.get(obj['kind'], obj['kind'].lower() + 's')}"


def _create(api: Api, objects: Iterable[Raw]) -> list[str]:
    """Creates objects; gives those that the API server refuses."""
    refused = []
    for obj in objects:
        try:
            api.request("POST", _path(obj), obj)
        except ApiError as error:
            if error.status == 422:
                refused.append(f"{obj['kind']} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}")
            elif error.status != 409:
                raise
    return refused


def _decisions(node: BareNode, cluster: Cluster) -> list[bool]:
    addresses = cluster.addresses
    ends = {
        **{pod: node.pods[pod] for pod in addresses},
        **dict.fromkeys((*OUTSIDE, *OUTSIDE6), node.outside),
        **dict.fromkeys((NODE, NODE6), node.netns),
    }
    flows = [
        Packets(ends[source], addresses.get(source, source), addresses.get(target, target), port, protocol)
        for source, target, port, protocol in cluster.flows
    ]
    return reached(flows, {netns.name: netns for netns in ends.values()}.values(), PORTS)


def record(recording: Recording, program: str) -> dict[str, Any]:
    """The decisions about all flows of the clusters."""
    clusters = recording.clusters()
    answers = []
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Binaries.built(), Path(folder)) as plane:
        api = plane.api()
        api.apply(recording.definitions())
        _create(api, (o for o in clusters[0].objects if o["kind"] in ("Namespace", "Tier")))
        node = BareNode(plane, "n1", (*OUTSIDE, *OUTSIDE6))
        assert (node.ip, node.ip6) == (NODE, NODE6)
        daemon = recording.start(node, program)
        try:
            for number, cluster in enumerate(clusters):
                objects = [o for o in cluster.objects if o["kind"] not in _OF_THE_CLUSTER]
                refused = _create(api, sorted(objects, key=lambda o: o["kind"] != "Tier"))
                node.run_pods(o for o in cluster.objects if o["kind"] == "Pod")
                recording.settle(node)
                daemon.check()
                did = _decisions(node, cluster)
                answers.append(["".join("a" if passed else "d" for passed in did), sorted(refused)])
                print(f"{number}: {sum(did)} of {len(did)} passed; refused {refused}", file=sys.stderr)
                for obj in (o for o in objects if o["kind"] != "Tier"):
                    api.delete(f"{_path(obj)}/{obj['metadata']['name']}")
                node.remove_pods()
        finally:
            daemon.kill()
            node.stop()
    return {"clusters": digest(clusters), "answers": answers}


def main() -> None:
    name, program = sys.argv[1:]
    remove_leftovers()
    recorded = record(RECORDINGS[name], program)
    lines = ",\n".join(json.dumps(line) for line in recorded["answers"])
    recorded_in(name).write_text(f'{{"clusters": "{recorded["clusters"]}", "answers": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
