"""The recorder on a real cluster: deployed, asked through the API server for a time that is over, removed whole."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, Done, agent_processes, everything, rows
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

BINDINGS = "/apis/rbac.authorization.k8s.io/v1"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/genainet/leases/genainet-objects"
GAP = re.compile(r"node node-1: nothing is known from (\S+) to (\S+): ")
TARGET = ("svc/my-llama-svc", "-n", "chat")
PATIENCE_S = 240  # of polls that end at once where the machine has time
BROUGHT = {
    "deployments genainet/genainet-objects",
    "secrets genainet/genainet-history",
    "serviceaccounts genainet/genainet-objects",
    "networkpolicies genainet/genainet-objects",
    "roles genainet/genainet-objects",
    "rolebindings genainet/genainet-objects",
    "clusterroles /genainet-history",
    "clusterrolebindings /genainet-objects",
}


def binding(cluster: Cluster, role: str, user: str, namespace: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": f"recorder-{role}", **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [cluster.subject(user)],
    }


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with recorders."""
    done = cluster.deploy("--record", "--record-size", "64Mi")
    assert done.status == 0, done.err
    yield cluster
    cluster.cli("undeploy")


@pytest.fixture
def recording(deployed: Cluster) -> Iterator[Cluster]:
    """With users: `viewer` may read the objects and what was recorded, `tracer` may trace what happens now."""
    api = deployed.api()
    api.apply(
        [
            binding(deployed, "genainet-view", "viewer"),
            binding(deployed, "genainet-history", "viewer", "genainet"),
            binding(deployed, "genainet-trace", "tracer", "genainet"),
        ]
    )
    yield deployed
    api.delete(f"{BINDINGS}/clusterrolebindings/recorder-genainet-view")
    for role in ("genainet-history", "genainet-trace"):
        api.delete(f"{BINDINGS}/namespaces/genainet/rolebindings/recorder-{role}")


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def past(cluster: Cluster, verb: str, since: float, until: float, *argv: str, user: str = "viewer") -> Done:
    times = ("--since", rfc3339(since), "--until", rfc3339(until))
    return cluster.cli(verb, *TARGET, *times, "-o", "json", *argv, user=user)


def recorded_paths(cluster: Cluster, since: float, node: str = "") -> list[dict[str, Any]]:
    """Calls that reached a pod; with `node`, those that this node recorded too. Raises while a node does not answer."""
    done = past(cluster, "trace", since, time.time())
    assert done.status in (0, 1), done.err
    paths = [row for row in rows(done.out) if row["kind"] == "path" and row["backend"] and row["backend"]["pod"]]
    return [path for path in paths if not node or node in {hop["node"] for hop in path["hops"]}]


def test_the_past_is_asked_for_through_the_api_server_with_a_right_of_its_own(recording: Cluster) -> None:
    begun = time.time()
    paths = wait_for("a recorded call", lambda: recorded_paths(recording, begun), PATIENCE_S, interval=3)
    assert {path["backend"]["node"] for path in paths} <= {"node-1", "node-2"} or not recording.nodes
    assert {path["backend"]["pod"].rpartition("-")[0].rpartition("-")[0] for path in paths} == {"my-llama-finetuned"}
    refused = past(recording, "trace", begun, time.time(), user="tracer")
    assert refused.status > 1 and refused.status != 124
    assert "genainet-history" in refused.err, refused.err


def test_objects_are_recorded_by_one_pod_without_privilege_that_holds_the_lease(recording: Cluster) -> None:
    api = recording.api()
    selector = "labelSelector=app.kubernetes.io/name=genainet-objects"
    (pod,) = api.get(f"/api/v1/namespaces/genainet/pods?{selector}")["items"]
    holder = wait_for("the lease", lambda: api.get(LEASE)["spec"].get("holderIdentity"), PATIENCE_S)
    assert holder == pod["metadata"]["name"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    if recording.nodes:
        node = recording.node(pod["spec"]["nodeName"])
        (uid,) = {line.split()[0] for line in processes(node) if "kubectl_genainet.kube.objects" in line}
        assert uid == "65532"


def processes(node: KubeNode) -> list[str]:
    return node.run("ps", "-e", "-o", "uid=,args=").splitlines()


@pytest.fixture
def nodes(deployed: Cluster) -> list[KubeNode]:
    if not deployed.nodes:
        pytest.skip("looks into a node: not on another's cluster")
    return deployed.nodes


def test_a_drop_that_is_over_is_named_with_its_rule_and_its_pods(recording: Cluster, nodes: list[KubeNode]) -> None:
    rule = ("-d", "10.244.2.0/24", "-p", "tcp", "--dport", "8080", "-j", "DROP")
    begun = time.time()
    recording.node("node-1").run("iptables", "-I", "FORWARD", *rule)
    try:
        wait_for("a recorded drop", lambda: rule_drops(recording, begun, time.time()), PATIENCE_S, interval=2)
        ended = time.time()
        (row,) = wait_for("the drops until then", lambda: rule_drops(recording, begun, ended), PATIENCE_S, interval=2)
    finally:
        recording.node("node-1").run("iptables", "-D", "FORWARD", *rule)
    assert (row["outcome"], row["node"], row["client"]["workload"]) == ("dropped", "node-1", "chatbot-ui")
    assert "--dport 8080 -j DROP" in row["drop"]["rule"]
    done = wait_for("all nodes' answers", lambda: answered(past(recording, "diagnose", begun, ended)), PATIENCE_S)
    assert done.status == 1, done.err
    assert json.loads(done.out)["causes"][0]["check"] == "rule-drop"


def answered(done: Done) -> Done:
    """What it said, where every node answered: on a busy machine an agent may be late, and its node is named then."""
    assert done.status in (0, 1), done.err
    return done


def rule_drops(cluster: Cluster, since: float, until: float) -> list[dict[str, Any]]:
    """The drops whose rule was recorded with them: rules are read a moment after the drop."""
    done = answered(past(cluster, "drops", since, until))
    last = {row["id"]: row for row in rows(done.out) if row["kind"] == "drop"}
    return [row for row in last.values() if row["severity"] == "error" and row["check"] == "rule-drop"]


def test_changes_are_in_the_timeline_when_they_happened(recording: Cluster) -> None:
    """The objects are this run's own: what an earlier one did with its own may lie in the same five seconds."""
    api, since = recording.api(), time.time() - 5
    name = f"changed-{time.time_ns():x}"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "chat"},
        "spec": {"podSelector": {"matchLabels": {"is": "nobody"}}, "policyTypes": ["Egress"]},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "chat"},
        "spec": {"ports": [{"port": 80}]},
    }
    path = f"/api/v1/namespaces/chat/services/{name}"

    def listed(*whats: str) -> dict[str, float]:
        """When each of them happened, once all are there."""
        (timeline,) = rows(answered(past(recording, "timeline", since, time.time())).out)
        own = [change for change in timeline["changes"] if change["object"] and change["object"]["name"] == name]
        times = {f"{change['kind']} {change['what'].partition(',')[0]}": change["at_s"] for change in own}
        return times if times.keys() >= set(whats) else {}

    try:
        api.apply([service, policy])
        made_s = time.time() - since
        created = ("service created", "policy created")
        times = wait_for("both objects", lambda: listed(*created), PATIENCE_S, interval=2)
        # All are watched: none waits until all is read again, which is done every ten minutes.
        assert all(4 <= times[what] <= made_s + 60 for what in created), times
        patched_s = time.time() - since
        api.patch(path, {"spec": {"sessionAffinity": "ClientIP"}})
        changed = "service changed: spec.sessionAffinity"
        times = wait_for("the change", lambda: listed(*created, changed), PATIENCE_S, interval=2)
        assert patched_s - 1 <= times[changed] <= patched_s + 60, times
    finally:
        api.delete(path)
        api.delete(f"/apis/networking.k8s.io/v1/namespaces/chat/networkpolicies/{name}")


def test_a_killed_agent_costs_no_more_than_a_gap_that_is_named(recording: Cluster, nodes: list[KubeNode]) -> None:
    node = recording.node("node-1")
    begun = time.time()
    wait_for("what node-1 recorded", lambda: recorded_paths(recording, begun, "node-1"), PATIENCE_S, interval=2)
    node.run("kill", f"-{int(signal.SIGKILL)}", *map(str, agent_processes(node)))
    killed = time.time()

    def gap() -> list[tuple[float, float]]:
        """What the node says that it lacks, once it answers; until then it is named as one that does not."""
        done = past(recording, "trace", begun, time.time())
        assert "node node-1: " in done.err, done.err
        gaps = [(seconds(since), seconds(until)) for since, until in GAP.findall(done.err)]
        # Times are told to the second.
        return [gap for gap in gaps if gap[0] <= killed <= gap[1] + 1] if done.status in (0, 1) else []

    since = wait_for("the agent to answer again", gap, PATIENCE_S, interval=0.5)[0][0]
    restarted = time.time()
    wait_for(
        "the agent to record again", lambda: recorded_paths(recording, restarted, "node-1"), PATIENCE_S, interval=2
    )
    paths = wait_for("all that it recorded", lambda: recorded_paths(recording, begun, "node-1"), PATIENCE_S, interval=2)
    assert [path for path in paths if seconds(path["time"]) < since + 1]  # what it had written outlives it


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_files_are_roots_alone_and_outlive_the_agents(recording: Cluster, nodes: list[KubeNode]) -> None:
    listed = nodes[0].run("find", "/var/lib/genainet", "-type", "f", "-printf", "%m %U %f\n").splitlines()
    assert listed and {line.rpartition(" ")[0] for line in listed} == {"600 0"}


def test_undeploy_removes_what_the_recorder_brought(deployed: Cluster) -> None:
    api = deployed.api()
    assert everything(api) >= BROUGHT
    done = deployed.cli("undeploy")
    assert done.status == 0 and "warning" not in done.err, done.err
    left = {name for name in everything(api) if "genainet" in name and "genainet-test" not in name}
    assert left == set()
    leases = api.get("/apis/coordination.k8s.io/v1/leases")["items"]
    assert not [lease for lease in leases if lease["metadata"]["name"] == "genainet-objects"]
