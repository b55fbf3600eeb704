"""What policy enforcers do to real packets, recorded: `python -m tests.oracles.packets.record PROGRAM` (as root).

PROGRAM is built in the folder kube-network-policies beside this file, which pins its module:
`go build -mod=readonly -o PROGRAM sigs.k8s.io/kube-network-policies/cmd`. The packets go through one node, on which it runs,
between pods that are network namespaces (tests/cluster/harness/bare_node.py), of an API server without controllers.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster.harness.api import Api, ApiError
from tests.cluster.harness.bare_node import BareNode, Packets, reached
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.crds import definitions
from tests.cluster.harness.processes import Daemon, remove_leftovers
from tests.oracles.packets.clusters import NODE, OUTSIDE, PORTS, Cluster, Raw, digest, plain_clusters

RECORDED = Path(__file__).with_name("kube-network-policies.json")
_PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "AdminNetworkPolicy": "adminnetworkpolicies",
    "BaselineAdminNetworkPolicy": "baselineadminnetworkpolicies",
}
_SETTLES = 2.0  # seconds; its caches follow the API at once, and it shows nowhere that they have


# nft's `queue` is not in every kernel, iptables' NFQUEUE mostly is: the same packets to the same queue. Rules and their order
# are those that kube-network-policies makes for the administrators' kinds; its own fail as one where nft has no queue.
_QUEUE = (
    "-m owner --uid-owner 0 -j ACCEPT",
    "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-j NFQUEUE --queue-num 100",
)


def _start(node: BareNode, program: str) -> Daemon:
    plane = node.plane
    folder = plane.folder / "account"
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(plane.tokens["admin"])
    (folder / "ca.crt").write_bytes(plane.ca.read_bytes())
    for rule in _QUEUE:
        node.netns.run("iptables", "-t", "mangle", "-A", "POSTROUTING", *rule.split())
    place = "/run/secrets/kubernetes.io"
    script = (
        f"mount -t tmpfs tmpfs /run && mkdir -p {place} && ln -s {folder} {place}/serviceaccount && exec {program} "
    )
    script += f"--admin-network-policy --baseline-admin-network-policy --hostname-override={node.name} --disable-nri 2>/dev/null"
    env = {"KUBERNETES_SERVICE_HOST": plane.ip, "KUBERNETES_SERVICE_PORT": "6443"}
    argv = ["unshare", "--mount", "sh", "-c", script]
    return Daemon("knp", argv, plane.folder / "knp.log", netns=node.netns, env=env)


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
    ends = {**{pod: node.pods[pod] for pod in addresses}, **dict.fromkeys(OUTSIDE, node.outside), NODE: node.netns}
    flows = [
        Packets(ends[source], addresses.get(source, source), addresses.get(target, target), port, protocol)
        for source, target, port, protocol in cluster.flows
    ]
    return reached(flows, {netns.name: netns for netns in ends.values()}.values(), PORTS)


def record(program: str) -> dict[str, Any]:
    """The decisions about all flows of the clusters."""
    clusters = plain_clusters()
    answers = []
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Binaries.built(), Path(folder)) as plane:
        api = plane.api()
        api.apply(d for d in definitions() if d["spec"]["group"] == "policy.networking.k8s.io")
        _create(api, (o for o in clusters[0].objects if o["kind"] == "Namespace"))
        node = BareNode(plane, "n1", OUTSIDE)
        assert node.ip == NODE
        daemon = _start(node, program)
        try:
            for number, cluster in enumerate(clusters):
                node.run_pods(o for o in cluster.objects if o["kind"] == "Pod")
                policies = [o for o in cluster.objects if o["kind"] in _PLURALS]
                refused = _create(api, policies)
                time.sleep(_SETTLES)
                daemon.check()
                did = _decisions(node, cluster)
                answers.append(["".join("a" if one else "d" for one in did), sorted(refused)])
                print(f"{number}: {sum(did)} of {len(did)} passed; refused {refused}", file=sys.stderr)
                for obj in policies:
                    api.delete(f"{_path(obj)}/{obj['metadata']['name']}")
                node.remove_pods()
        finally:
            daemon.kill()
            node.stop()
    return {"clusters": digest(clusters), "answers": answers}


def main() -> None:
    remove_leftovers()
    recorded = record(sys.argv[1])
    lines = ",\n".join(json.dumps(line) for line in recorded["answers"])
    RECORDED.write_text(f'{{"clusters": "{recorded["clusters"]}", "answers": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
