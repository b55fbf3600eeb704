"""`deploy` and `undeploy`: server-side apply of the base, waiting with reasons, removal of exactly what was made."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.always import MONITORING
from kubectl_genainet.kube.agents.base import (
    AGENT,
    MANAGED_BY,
    VERSION_LABEL,
    DeployOptions,
    always_on_extras,
    capability,
    render,
)
from kubectl_genainet.kube.agents.leftovers import others_in
from kubectl_genainet.kube.agents.paths import collection_path, describe, get_or_none, kubectl_describe, object_path
from kubectl_genainet.kube.agents.progress import AGENT_PODS
from kubectl_genainet.kube.agents.record import HISTORY_CAPABILITY
from kubectl_genainet.kube.agents.rollout import has_ended, runs
from kubectl_genainet.kube.client import FIELD_MANAGER, KubeClient
from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.shell import sh

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


class AppliedObject(msgspec.Struct, frozen=True):
    """One object and what became of it: created, configured, unchanged, kept, deleted, not ours; `waiting`, until what
    an undeploy left is gone; `not checked`, in a dry run without its namespace.
    """

    object: str
    outcome: str
    note: str = ""


def has_monitoring(client: KubeClient) -> bool:
    """Whether the cluster has the Prometheus Operator's kinds."""
    groups = client.json("GET", "/apis", doing="ask which APIs there are").get("groups") or []
    return MONITORING in {group.get("name") for group in groups}


def api_server_port(client: KubeClient) -> int:
    """The port behind the Service default/kubernetes; 0 where the user may not read it."""
    try:
        endpoints = client.get("/api/v1/namespaces/default/endpoints/kubernetes")
        return int(endpoints["subsets"][0]["ports"][0]["port"])
    except (ApiError, LookupError, TypeError, ValueError):
        return 0


def is_ours(obj: dict[str, Any]) -> bool:
    return bool(obj["metadata"].get("labels", {}).get(MANAGED_BY[0]) == MANAGED_BY[1])


def deploy(
    client: KubeClient, options: DeployOptions, timeout_s: float = 120, *, dry_run: bool = False
) -> Iterator[AppliedObject]:
    """Applies every object, and makes the capability where there is none; gives each step as it is done.

    What an undeploy is still removing is waited for, `timeout_s` seconds in all. Can be repeated: what is as it should
    be stays. A namespace that deploy did not make is used as it is. `dry_run` asks the server to check and to change
    nothing; without the namespace it can't check what belongs there.
    """
    deadline = time.monotonic() + timeout_s
    has_profiles, lacks_namespace = has_apparmor_profiles(client), False
    for obj in render(options):
        if obj["kind"] == "DaemonSet":
            if has_profiles:
                name_apparmor_profile(obj)
            yield _ensure_capability(client, capability(options.namespace), dry_run)
            if options.record is not None:
                history = capability(options.namespace, HISTORY_CAPABILITY)
                yield _ensure_capability(client, history, dry_run)
        if lacks_namespace and "namespace" in obj["metadata"]:
            yield AppliedObject(describe(obj), "not checked")
            continue
        existing = _existing(client, obj)
        if _is_going(existing) and not dry_run:
            yield AppliedObject(describe(obj), "waiting", "an earlier one is still being deleted")
            existing = _once_gone(client, obj, deadline, timeout_s)
        if obj["kind"] == "Namespace" and existing is not None and not is_ours(existing):
            yield AppliedObject(describe(obj), "kept", _podsecurity_note(existing))
            continue
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        applied = client.json(
            "PATCH",
            object_path(obj),
            obj,
            query=query,
            content_type="application/apply-patch+yaml",
            doing=f"apply {describe(obj)}",
        )
        lacks_namespace |= dry_run and obj["kind"] == "Namespace" and existing is None
        note = "it does not exist yet: the server checks nothing that belongs into it" if lacks_namespace else ""
        yield AppliedObject(describe(obj), _outcome(existing, applied), note if obj["kind"] == "Namespace" else "")
    if not dry_run:
        yield from filter(None, (_remove_extra(client, obj) for obj in always_on_extras(options)))
    yield from other_fleets(client, options.namespace)


def other_fleets(client: KubeClient, namespace: str) -> Iterator[AppliedObject]:
    """Agents that were deployed in other namespaces; none where the user may not look for them."""
    try:
        listed = client.get("/apis/apps/v1/daemonsets", labelSelector=f"app.kubernetes.io/name={AGENT}").get("items")
    except ApiError:
        return
    for metadata in (daemonset["metadata"] for daemonset in listed or ()):
        other, version = metadata["namespace"], metadata.get("labels", {}).get(VERSION_LABEL, "unknown")
        if other != namespace:
            note = (
                f"agents of version {version} run in namespace {other} too. Of another version, they and these disturb each "
                f"other's --exact; `kubectl genainet undeploy -n {sh(other)}` removes them"
            )
            yield AppliedObject(f"daemonset {other}/{metadata['name']}", "kept", note)


def has_apparmor_profiles(client: KubeClient) -> bool:
    """Whether the API server knows the field appArmorProfile (Kubernetes 1.30); no where that can't be read."""
    try:
        minor = str((client.json("GET", "/version") or {}).get("minor", ""))
    except ApiError:
        return False
    digits = re.match(r"\d+", minor)
    return digits is not None and int(digits[0]) >= 30


def name_apparmor_profile(daemonset: dict[str, Any]) -> None:
    """Puts the field in place of the annotation, which newer releases warn of and will ignore."""
    template = daemonset["spec"]["template"]
    annotations = template["metadata"].get("annotations", {})
    for container in template["spec"]["containers"]:
        if annotations.pop(_APPARMOR + container["name"], "") == "unconfined":
            container.setdefault("securityContext", {})["appArmorProfile"] = {"type": "Unconfined"}


def _existing(client: KubeClient, obj: dict[str, Any]) -> Any:
    return get_or_none(client, object_path(obj), f"get {describe(obj)}")


def _is_going(obj: Any) -> bool:
    return obj is not None and bool(obj["metadata"].get("deletionTimestamp"))


def _once_gone(client: KubeClient, obj: dict[str, Any], deadline: float, timeout_s: float) -> Any:
    """None, or what another made in the place of the object that was being deleted."""
    while _is_going(existing := _existing(client, obj)):
        if time.monotonic() >= deadline:
            raise GenainetError(
                f"{describe(obj)} is still being deleted after {timeout_s:.0f} s",
                "Is the kubelet of every node alive? A longer --timeout waits for a node that is slow.",
            )
        time.sleep(0.5)
    return existing


def _outcome(before: Any, after: Any) -> str:
    if before is None:
        return "created"
    return "unchanged" if _content(before) == _content(after) else "configured"


def _content(obj: dict[str, Any]) -> dict[str, Any]:
    """What an object says, without the server's bookkeeping: older servers write that anew at each apply."""
    declared = {k: v for k, v in obj.items() if k not in ("metadata", "status")}
    return declared | {k: obj["metadata"].get(k) for k in ("labels", "annotations", "generation")}


def _podsecurity_note(namespace: dict[str, Any]) -> str:
    level = namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce", "")
    if level == "privileged":
        return ""
    shown = f"enforces PodSecurity {level}" if level else "sets no PodSecurity level"
    return f"deploy did not make it and leaves it as it is; it {shown}, and the agent needs privileged"


def _ensure_capability(client: KubeClient, secret: dict[str, Any], dry_run: bool) -> AppliedObject:
    """A Secret that agents and callers share; never replaced, or running clients would be locked out."""
    if get_or_none(client, object_path(secret), f"get {describe(secret)}") is not None:
        return AppliedObject(describe(secret), "unchanged")
    if not dry_run:
        client.json("POST", collection_path(secret), secret, doing=f"create {describe(secret)}")
    return AppliedObject(describe(secret), "created")


def undeploy(client: KubeClient, namespace: str, timeout_s: float, *, wait: bool = True) -> Iterator[AppliedObject]:
    """Removes what deploy made, the agents first; gives each step as it is done.

    A probe lives as long as its agent's process: once the kubelet says of every pod that its containers have ended, or
    has removed it, no probe is left. Raises GenainetError naming the nodes of which that is not known in time.
    """
    deadline = time.monotonic() + timeout_s
    options = DeployOptions(namespace=namespace)
    yield from filter(None, (_remove_extra(client, obj) for obj in always_on_extras(options)))
    objects = [*render(options), capability(namespace), capability(namespace, HISTORY_CAPABILITY)]
    for obj in sorted(objects, key=_removal_order):
        if obj["kind"] == "Namespace":
            yield from _remove_namespace(client, obj, deadline, wait)
            continue
        step = _remove(client, obj)
        if step is not None:
            yield step
        if obj["kind"] == "DaemonSet" and wait:
            _wait_for_agents_to_end(client, namespace, deadline, timeout_s)


def _removal_order(obj: dict[str, Any]) -> int:
    """Agents first; the roles last, the administrator's own at the very end: they may be what allows the removal."""
    if obj["metadata"]["name"] == "genainet-admin":
        return 4
    return {"DaemonSet": 0, "Namespace": 2, "ClusterRole": 3}.get(obj["kind"], 1)


def _remove(client: KubeClient, obj: dict[str, Any]) -> AppliedObject | None:
    existing = _existing(client, obj)
    if existing is None:
        return None
    if not is_ours(existing):
        return AppliedObject(describe(obj), "kept", "deploy did not make it")
    # In the foreground an object stays until the garbage collector has come by: of use only where it owns others.
    policy = "Foreground" if obj["kind"] == "DaemonSet" else "Background"
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
    # Only this very object: not one of the same name that was made in between.
    options["preconditions"] = {"uid": existing["metadata"]["uid"]}  # type: ignore[assignment]
    try:
        client.json("DELETE", object_path(obj), options, doing=f"delete {describe(obj)}")
    except ApiError as error:
        if error.status != 404:  # its end, begun before, has come meanwhile
            raise
        return None
    return AppliedObject(describe(obj), "deleted")


def _remove_extra(client: KubeClient, obj: dict[str, Any]) -> AppliedObject | None:
    """As `_remove`; a role of an earlier version may not look for what that version did not make."""
    try:
        return _remove(client, obj)
    except ApiError as error:
        if error.status == 403:
            return None
        raise


def _wait_for_agents_to_end(client: KubeClient, namespace: str, deadline: float, timeout_s: float) -> None:
    ran: set[str] = set()  # UIDs of pods that were seen to run: where they don't any more, their kubelet has said so
    while True:
        listed = client.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=AGENT_PODS).get("items") or []
        ran |= {pod["metadata"]["uid"] for pod in listed if runs(pod)}
        pods = [p for p in listed if runs(p) or not (has_ended(p) or p["metadata"]["uid"] in ran)]
        if not pods:
            return
        if time.monotonic() >= deadline:
            nodes = sorted({p.get("spec", {}).get("nodeName", "") or "no node" for p in pods})
            raise GenainetError(
                f"agents are still there after {timeout_s:.0f} s, on {', '.join(nodes)}",
                "Is the kubelet of that node alive? A probe ends with its agent's process, or when the node restarts.",
            )
        time.sleep(0.5)


def _remove_namespace(client: KubeClient, obj: dict[str, Any], deadline: float, wait: bool) -> Iterator[AppliedObject]:
    existing = _existing(client, obj)
    if existing is None:
        return
    if not is_ours(existing):
        yield AppliedObject(describe(obj), "kept", "deploy did not make it")
        return
    foreign = others_in(client, obj["metadata"]["name"])
    if foreign:
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        yield AppliedObject(describe(obj), "kept", f"it holds what deploy did not make: {shown}")
        return
    step = _remove(client, obj)
    while wait and get_or_none(client, object_path(obj)) is not None:
        if time.monotonic() >= deadline:
            raise GenainetError(f"{describe(obj)} is still being deleted", f"{kubectl_describe(obj)} says why.")
        time.sleep(0.5)
    if step is not None:
        yield step
