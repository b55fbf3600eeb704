"""Why an agent does not run: the pod's own status, its events and its last words, turned into what to do.

Pure: API objects in, problems out. Sources: kubelet's container waiting reasons (pkg/kubelet/images/types.go,
pkg/kubelet/container/sync_result.go), PodSecurity admission (KEP-2579), DaemonSet controller events (FailedCreate).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from kubectl_genainet.kube.agents.base import CAPABILITY

AGENT_CONTAINER = "agent"
_OWN = "genainet-agent:"  # begins the agent's own messages (agent/main.py)
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CREATE = {"CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun"}


class RolloutProblem(msgspec.Struct, frozen=True):
    """What keeps an agent from running. `node` and `pod` are empty for what concerns the whole DaemonSet."""

    what: str
    hint: str = ""
    node: str = ""
    pod: str = ""


def daemonset_problems(events: Iterable[Mapping[str, Any]]) -> list[RolloutProblem]:
    """Problems that keep pods from being created at all, from the DaemonSet's events, newest last."""
    problems: dict[str, RolloutProblem] = {}
    for event in events:
        if event.get("reason") != "FailedCreate":
            continue
        message = str(event.get("message", ""))
        if "violates PodSecurity" in message or "PodSecurityPolicy" in message or "pod security policy" in message:
            hint = (
                "Label the namespace pod-security.kubernetes.io/enforce=privileged (deploy does so for one that it "
                "makes), or let the cluster's own policy admit the agent; docs/security.md argues each capability."
            )
        elif "quota" in message:
            hint = "A ResourceQuota of the namespace is used up, or doesn't admit the PriorityClass genainet-agent."
        elif "admission webhook" in message:
            hint = "An admission policy (Kyverno, Gatekeeper, …) refuses the agent: exempt its namespace."
        else:
            hint = ""
        problems[message] = RolloutProblem(f"its pods are not admitted: {message}", hint)
    return list(problems.values())


def pod_problem(
    pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = (), log: str = ""
) -> RolloutProblem | None:
    """Why one agent pod is not ready, as far as can be told; None where it is, or where it is merely on its way.

    `log` is the end of what its container said before it ended.
    """
    status, spec = pod.get("status", {}), pod.get("spec", {})
    node, name = spec.get("nodeName", ""), pod.get("metadata", {}).get("name", "")

    def problem(what: str, hint: str = "") -> RolloutProblem:
        return RolloutProblem(what, hint, node or _wanted_node(spec), name)

    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return problem(
                f"it is not scheduled: {condition.get('message', '')}", "See --node-selector and --tolerations."
            )
    if status.get("phase") == "Failed":
        return problem(f"the node ended it: {status.get('reason', '')} {status.get('message', '')}".rstrip())
    containers = status.get("containerStatuses", ())
    if containers and all(container.get("ready") for container in containers):
        return None
    for container in sorted(containers, key=lambda c: c.get("name") != AGENT_CONTAINER):
        if container.get("ready"):
            continue
        told = _of_container(container, problem, log)
        if told is not None:
            return told
        if "running" in container.get("state", {}):
            return _unhealthy(events, problem)
    return _from_events(events, problem)


def _of_container(
    container: Mapping[str, Any], problem: Callable[[str, str], RolloutProblem], log: str
) -> RolloutProblem | None:
    """Why a container is not ready by what the kubelet says of its state; None where that says nothing."""
    state = container.get("state", {})
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
    waiting = state.get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason == "CrashLoopBackOff" or not message:  # whose message only says how long it waits
        message = ended.get("message", "")
    if reason in _IMAGE:
        return problem(
            f"the node can't pull {container.get('image') or 'the image'}: {message or reason}",
            "Build it (scripts/build-image.sh), push it where the nodes can pull it, and give --image.",
        )
    if reason == "CreateContainerConfigError":
        return problem(f"the container can't be set up: {message}", _config_hint(message))
    if reason in _CREATE or ended.get("reason") in _CREATE:
        return problem(f"the container can't be started: {message or reason}", _start_hint(message))
    if ended.get("reason") == "OOMKilled":
        return problem("it ran out of its memory limit", "Raise resources.limits.memory of the DaemonSet.")
    if reason == "CrashLoopBackOff" or ended:
        last_output = ended.get("message") or log  # the status has the end of the log (terminationMessagePolicy)
        return problem(_last_words(ended, last_output), _crash_hint(last_output))
    return None


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the kubelet has reported every container of the pod as ready."""
    containers = pod.get("status", {}).get("containerStatuses") or ()
    return bool(containers) and all(container.get("ready") for container in containers)


def runs(pod: Mapping[str, Any]) -> bool:
    """Whether a container of the pod runs, as the kubelet has last reported it."""
    return any("running" in c.get("state", {}) for c in pod.get("status", {}).get("containerStatuses") or ())


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether the kubelet has reported that every container of a pod that is being deleted has ended.

    The object may stay for long after that: until the kubelet has removed the containers (which it may leave to its
    garbage collection, once a minute) and looks at its pods' states again (every ten seconds).
    """
    containers = pod.get("status", {}).get("containerStatuses") or ()
    ended = bool(containers) and all("terminated" in container.get("state", {}) for container in containers)
    return ended and bool(pod.get("metadata", {}).get("deletionTimestamp"))


def _unhealthy(
    events: Iterable[Mapping[str, Any]], problem: Callable[[str, str], RolloutProblem]
) -> RolloutProblem | None:
    for event in reversed(list(events)):
        if event.get("reason") == "Unhealthy":
            message = "; ".join(str(event.get("message", "")).split("\n")).strip("; ")
            return problem(f"it runs and doesn't answer its probe: {message}", _start_hint(message))
    return None


def _from_events(
    events: Iterable[Mapping[str, Any]], problem: Callable[[str, str], RolloutProblem]
) -> RolloutProblem | None:
    for event in reversed(list(events)):
        reason, message = event.get("reason", ""), str(event.get("message", ""))
        if reason == "FailedMount" and "failed to sync" not in message:  # the kubelet's own cache: over in a second
            return problem(f"a volume can't be mounted: {message}", _config_hint(message))
        if reason in ("FailedCreatePodSandBox", "FailedCreatePodContainer"):
            hint = "The node can't give it an address or a network namespace: look at the CNI plugin on that node."
            return problem(f"its sandbox can't be made: {message}", hint)
        if reason == "NodeNotReady":
            return problem("its node is not ready", "Look at the kubelet of that node.")
    return None


def _wanted_node(spec: Mapping[str, Any]) -> str:
    """A DaemonSet's pod that is not scheduled yet names its node in the affinity (metadata.name)."""
    try:
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        return str(terms[0]["matchFields"][0]["values"][0])
    except (KeyError, IndexError, TypeError):
        return ""


def _config_hint(message: str) -> str:
    if CAPABILITY in message:
        return f"The Secret {CAPABILITY} is missing: run `kubectl genainet deploy` again, which makes it."
    return ""


def _start_hint(message: str) -> str:
    text = message.lower()
    if "seccomp" in text:
        return "The node's runtime refuses the seccomp profile RuntimeDefault: see the fallback in docs/security.md."
    if "capabilit" in text or "apply caps" in text:
        return (
            "The node's runtime doesn't know, or may not give, one of the agent's capabilities: docs/security.md says "
            "which can be left out where."
        )
    if "apparmor" in text:
        return "AppArmor refuses `unconfined` for this pod: see docs/security.md."
    if "no such file" in text or "not found" in text:
        return "The image is not the agent's, or is for another architecture: see --image."
    return ""


def _last_words(ended: Mapping[str, Any], log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    status = ended.get("exitCode", "?")
    if not lines:
        return f"it ended with status {status} and said nothing"
    own_lines = [line for line in lines if line.startswith(_OWN)]
    return f"it ended with status {status}: {(own_lines or lines)[-1]}"


def _crash_hint(log: str) -> str:
    if "btf" in log.lower():
        return "The node's kernel has no BTF (/sys/kernel/btf/vmlinux): it needs one with CONFIG_DEBUG_INFO_BTF=y."
    lines = log.splitlines()
    for line, after in zip(reversed(lines[:-1]), reversed(lines[1:]), strict=True):
        if line.startswith(_OWN) and after.startswith("  "):  # what the agent itself says to do
            return after.strip()
    if "Operation not permitted" in log or "Permission denied" in log:
        return (
            "The kernel refuses what the agent needs: lockdown, seccomp or an LSM; docs/security.md lists what it uses."
        )
    if "exec format error" in log:
        return "The image is for another architecture: build it with --platform."
    return "kubectl logs --previous shows all it said."
