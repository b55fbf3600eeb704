"""Why an agent does not run: each cause gives its reason and what to do."""

from typing import Any

import msgspec
import pytest

from kubectl_genainet import wire
from kubectl_genainet.kube.agents.fleet import fleet, skew
from kubectl_genainet.kube.agents.forward import Agent
from kubectl_genainet.kube.agents.rollout import RolloutProblem, daemonset_problems, has_ended, pod_problem
from kubectl_genainet.model.events import Hello
from kubectl_genainet.model.kube import KubeObject


def pod(waiting: dict[str, str] | None = None, ended: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "agent", "image": "r/agent:1", "ready": False, "state": {}}
    if waiting:
        container["state"]["waiting"] = waiting
    if ended:
        container["lastState"] = {"terminated": ended}
    return {
        "metadata": {"name": "genainet-agent-x"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Pending", "containerStatuses": [container], **status},
    }


CRASH = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}


@pytest.mark.parametrize(
    ("found", "log", "what", "hint"),
    [
        (pod({"reason": "ImagePullBackOff", "message": "not found"}), "", "can't pull r/agent:1: not found", "--image"),
        (pod({"reason": "ErrImagePull", "message": "401"}), "", "can't pull r/agent:1: 401", "push it"),
        (
            pod({"reason": "CreateContainerError", "message": "seccomp: config provided but not supported"}),
            "",
            "can't be started: seccomp",
            "seccomp profile",
        ),
        (pod({"reason": "RunContainerError", "message": "unknown capability CAP_BPF"}), "", "CAP_BPF", "left out"),
        (
            pod(CRASH, {"exitCode": 1}),
            "genainet-agent: /sys/kernel/btf/vmlinux is missing: no BTF\n",
            "ended with status 1: genainet-agent: /sys/kernel/btf",
            "CONFIG_DEBUG_INFO_BTF",
        ),
        (pod(CRASH, {"exitCode": 1}), "bpf: Operation not permitted", "Operation not permitted", "lockdown, seccomp"),
        (pod(CRASH, {"exitCode": 3}), "", "ended with status 3 and said nothing", "--previous"),
        (pod(CRASH, {"exitCode": 137, "reason": "OOMKilled"}), "", "memory limit", "resources.limits.memory"),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient memory"}]),
            "",
            "not scheduled: Insufficient memory",
            "--node-selector",
        ),
    ],
)
def test_a_pod_that_does_not_start_says_why(found: dict[str, Any], log: str, what: str, hint: str) -> None:
    problem = pod_problem(found, log=log)
    assert problem is not None
    assert what in problem.what
    assert hint in problem.hint
    assert (problem.node, problem.pod) == ("n1", "genainet-agent-x")


def test_a_pod_that_is_ready_or_on_its_way_has_no_problem() -> None:
    ready = pod()
    ready["status"]["containerStatuses"][0]["ready"] = True
    assert pod_problem(ready) is None
    assert pod_problem(pod({"reason": "ContainerCreating"})) is None


def test_an_agent_has_ended_when_the_kubelet_says_so_of_every_container() -> None:
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    ended, runs = {"name": "agent", "state": {"terminated": {}}}, {"name": "names", "state": {"running": {}}}
    waits = {"name": "agent", "state": {"waiting": {}}, "lastState": {"terminated": {}}}
    for metadata, containers, wanted in (
        (going, [ended], True),
        (going, [ended, runs], False),
        (going, [], False),
        (going, [waits], False),
        ({}, [ended], False),
    ):
        assert has_ended({"metadata": metadata, "status": {"containerStatuses": containers}}) is wanted


def test_the_reason_is_in_the_status_where_logs_may_not_be_read_and_the_hint_is_the_agents_own() -> None:
    said = (
        "genainet-agent: the node's network namespace can't be found: process 812 may not be looked at\n"
        "  In a pod the agent needs hostPID and CAP_SYS_PTRACE; elsewhere name it with --host-netns.\n"
    )
    problem = pod_problem(pod(CRASH, {"exitCode": 1, "message": said}))
    assert problem is not None
    assert problem.what.endswith("process 812 may not be looked at")
    assert "CAP_SYS_PTRACE" in problem.hint


def test_a_container_beside_the_agent_that_does_not_start_is_named_too() -> None:
    found = pod({"reason": "ErrImagePull", "message": "401"})
    (names,) = found["status"]["containerStatuses"]
    names["name"] = "names"
    found["status"]["containerStatuses"] = [{"name": "agent", "ready": True, "state": {"running": {}}}, names]
    problem = pod_problem(found)
    assert problem is not None and "can't pull r/agent:1: 401" in problem.what


def test_mounts_and_sandboxes_that_fail_are_known_from_events() -> None:
    creating = pod({"reason": "ContainerCreating"})
    mount = {"reason": "FailedMount", "message": 'secret "genainet-trace" not found'}
    problem = pod_problem(creating, [mount])
    assert problem is not None and "genainet-trace" in problem.what and "deploy` again" in problem.hint
    sandbox = pod_problem(creating, [mount, {"reason": "FailedCreatePodSandBox", "message": "no IP addresses"}])
    assert sandbox is not None and "no IP addresses" in sandbox.what and "CNI" in sandbox.hint


def test_a_pod_that_runs_and_fails_its_probe_says_so_and_forgets_what_is_over() -> None:
    running = pod()
    running["status"]["containerStatuses"][0]["state"] = {"running": {}}
    mount = {"reason": "FailedMount", "message": "failed to sync secret cache"}
    assert pod_problem(running, [mount]) is None
    problem = pod_problem(running, [mount, {"reason": "Unhealthy", "message": "Startup probe failed: refused"}])
    assert problem is not None and problem.what == "it runs and doesn't answer its probe: Startup probe failed: refused"


def test_a_pending_pod_names_the_node_it_is_for() -> None:
    pending = pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "taint"}])
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n7"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    pending["spec"] = {"affinity": {"nodeAffinity": required}}
    problem = pod_problem(pending)
    assert problem is not None and problem.node == "n7"


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": host namespaces', "enforce=privileged"),
        ("exceeded quota: compute", "ResourceQuota"),
        ('admission webhook "validate.kyverno.svc" denied the request', "exempt its namespace"),
    ],
)
def test_pods_that_are_not_admitted_say_what_refuses_them(message: str, hint: str) -> None:
    (problem,) = daemonset_problems([{"reason": "FailedCreate", "message": message}, {"reason": "SuccessfulCreate"}])
    assert message in problem.what
    assert hint in problem.hint


def test_the_fleet_has_a_row_for_every_node() -> None:
    hello = Hello(
        node="n1",
        protocol=wire.PROTOCOL,
        version="0.1.0",
        kernel="6.1",
        boot_id="b",
        t_ns=1,
        realtime_ns=2,
        tier="tracepoint",
    )
    agents = [Agent(f"n{i}", f"p{i}", "genainet", i != 3, "0.1.0", KubeObject({})) for i in (1, 2, 3, 5)]
    rows = fleet(
        ["n1", "n2", "n3", "n4"],
        agents,
        {"n1": hello, "n2": "it said nothing", "n5": msgspec.structs.replace(hello, node="n5", protocol=1)},
        [RolloutProblem("no image", "push", "n3")],
    )
    assert [(r.node, r.state, r.problem) for r in rows] == [
        ("n1", "ready", ""),
        ("n2", "silent", "it said nothing"),
        ("n3", "not ready", "no image"),
        ("n4", "none", "no agent is meant to run here (see --node-selector, --tolerations)"),
        ("n5", "incompatible", f"the agent on node n5 (0.1.0) speaks protocol 1, this client {wire.PROTOCOL}"),
    ]
    assert "deploy" in rows[4].hint and rows[4].wrong
    assert rows[0].kernel == "6.1"


def test_a_skew_between_client_and_agents_is_told() -> None:
    assert skew("0.1.0", ["0.0.9", "0.1.0", "0.0.9"]) == "agents of version 0.0.9 run, this client is 0.1.0"
    assert skew("0.1.0", [""]) == "agents of version unknown run, this client is 0.1.0"
    assert skew("0.0.9", ["0.0.9"]) == ""
