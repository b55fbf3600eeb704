"""How far a rollout is: the agents, and the recorder of the cluster's objects."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kubectl_genainet.deadline import side_by_side
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.base import AGENT
from kubectl_genainet.kube.agents.paths import get_or_none
from kubectl_genainet.kube.agents.record import OBJECTS
from kubectl_genainet.kube.agents.rollout import (
    AGENT_CONTAINER,
    RolloutProblem,
    daemonset_problems,
    is_ready,
    pod_problem,
)
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError, Unreachable
from kubectl_genainet.shell import sh

AGENT_PODS = f"app.kubernetes.io/name={AGENT}"
_NO_LOG = b"unable to retrieve container logs"  # what the kubelet answers for a container that it has removed
_PARALLEL = 8  # logs that are asked for at a time
_LOOKING_SHARE = 0.25  # of the time, at most, is spent on looking how far 1,000 agents are
_Warnings = Mapping[str, list[dict[str, Any]]]  # events by the uid of the object that they are about
_DAEMONSET = "/apis/apps/v1/namespaces/{}/daemonsets/" + AGENT


class Rollout(msgspec.Struct, frozen=True):
    """How far the agents are, and (`objects`) whether the recorder of objects is ready; where there is none it is not waited
    for. `problems` say what keeps them from running, as far as can be told."""

    ready: int
    desired: int
    complete: bool
    observed: bool  # the controller has seen the newest version
    problems: tuple[RolloutProblem, ...] = ()
    objects: bool = True


def rollout(client: KubeClient, namespace: str) -> Rollout:
    """How far the agents are now, with the reasons for those that don't run."""
    daemonset = get_or_none(client, _DAEMONSET.format(namespace), f"get daemonset {namespace}/{AGENT}")
    if daemonset is None:
        raise GenainetError(f"there is no DaemonSet {namespace}/{AGENT}", "Run `kubectl genainet deploy` first.")
    status = daemonset.get("status", {})
    desired, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    current = status.get("observedGeneration", 0) >= daemonset["metadata"].get("generation", 0)
    updated = status.get("updatedNumberScheduled", 0)
    agents = current and desired > 0 and ready >= desired and updated >= desired
    objects = _objects_ready(client, namespace)
    problems: list[RolloutProblem] = []
    warnings = {} if agents and objects else _warnings(client, namespace)
    if not agents:
        problems += daemonset_problems(warnings.get(daemonset["metadata"].get("uid", ""), ()))
        problems += _problems_of_pods(client, namespace, AGENT_PODS, warnings)
    if not objects:
        of_recorder = _problems_of_pods(client, namespace, f"app.kubernetes.io/name={OBJECTS}", warnings)
        problems += [msgspec.structs.replace(problem, what=f"{OBJECTS}: {problem.what}") for problem in of_recorder]
    return Rollout(ready, desired, agents and objects, current, tuple(problems), objects)


def _objects_ready(client: KubeClient, namespace: str) -> bool:
    """Whether the recorder of objects is; yes where there is none."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{OBJECTS}"
    deployment = get_or_none(client, path, f"get deployment {namespace}/{OBJECTS}")
    if deployment is None:
        return True
    status = deployment.get("status", {})
    current = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return bool(current and status.get("readyReplicas", 0) and status.get("updatedReplicas", 0))


def _problems_of_pods(client: KubeClient, namespace: str, selector: str, warnings: _Warnings) -> list[RolloutProblem]:
    """What ended containers said is asked for side by side: there may be 1,000 of them."""
    pods = client.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector).get("items") or []
    unready = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp") and not is_ready(pod)]
    logs = side_by_side(lambda pod: _last_words(client, pod), unready, _PARALLEL, name="log")
    problems = [
        pod_problem(pod, warnings.get(pod["metadata"].get("uid", ""), ()), log)
        for pod, log in zip(unready, logs, strict=True)
    ]
    return [problem for problem in problems if problem is not None]


def _warnings(client: KubeClient, namespace: str) -> _Warnings:
    """The namespace's warnings, oldest first; none where the user may not read them."""
    try:
        events = client.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector="type=Warning").get("items") or []
    except ApiError:
        return {}
    by_object: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in sorted(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or "")):
        by_object[str((event.get("involvedObject") or {}).get("uid", ""))].append(event)
    return by_object


def _last_words(client: KubeClient, pod: dict[str, Any]) -> str:
    """The end of the log of the pod's ended container, where its status does not hold it."""
    ended = _ended_container(pod)
    return _last_log(client, pod, ended) if ended else ""


def _ended_container(pod: dict[str, Any]) -> str:
    """The name of the container that has ended and left no message, the agent's before others; "" where none has."""
    ended = [
        container["name"]
        for container in pod.get("status", {}).get("containerStatuses") or ()
        if (end := {**container.get("lastState", {}), **container.get("state", {})}.get("terminated")) is not None
        and not end.get("message")
    ]
    return AGENT_CONTAINER if AGENT_CONTAINER in ended else next(iter(ended), "")


def _last_log(client: KubeClient, pod: dict[str, Any], container: str) -> str:
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/log"
    for previous in ("true", "false"):
        query = {"container": container, "previous": previous, "tailLines": "20", "limitBytes": "8192"}
        try:
            text = client.request("GET", path, query=query)
        except (ApiError, Unreachable):
            continue
        if text and not text.startswith(_NO_LOG):
            return text.decode("utf-8", "replace")
    return ""


def wait_for_rollout(
    client: KubeClient, namespace: str, timeout_s: float, tell: Callable[[Rollout], None], interval_s: float = 1.0
) -> Rollout:
    """Waits until every agent is ready, and the recorder of objects where there is one; `tell` gets each state that differs
    from the one before.

    Raises GenainetError with the first problem when the time is up.
    """
    deadline = time.monotonic() + timeout_s
    last_state: Rollout | None = None
    while True:
        begun = time.monotonic()
        state = rollout(client, namespace)
        took = time.monotonic() - begun
        if state != last_state:
            tell(state)
            last_state = state
        if state.complete:
            return state
        if time.monotonic() >= deadline:
            raise _not_in_time(state, namespace, timeout_s)
        time.sleep(max(interval_s, took / _LOOKING_SHARE - took))


def _not_in_time(state: Rollout, namespace: str, timeout_s: float) -> GenainetError:
    if not state.observed:
        return GenainetError(
            f"the cluster has not taken up the DaemonSet after {timeout_s:.0f} s", "Does kube-controller-manager run?"
        )
    if not state.desired and not state.problems:
        return GenainetError("no node is selected for the agent", "See --node-selector and --tolerations.")
    message = f"{state.ready} of {state.desired} agents are ready after {timeout_s:.0f} s"
    if not state.objects:
        message += f", and {OBJECTS} is not"
    if not state.problems:
        return GenainetError(message, f"See `kubectl -n {sh(namespace)} get pods`, or wait longer with --timeout.")
    first = state.problems[0]
    where = f"on {first.node}, " if first.node else ""
    return GenainetError(f"{message}; {where}{first.what}", first.hint)
