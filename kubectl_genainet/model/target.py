"""What the user points at: svc/NAME[:PORT], pod/NAME, deploy/NAME, IP[:PORT]."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Pod, Service
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.shell import sh


class TargetKind(Enum):
    SERVICE = "svc"
    POD = "pod"
    WORKLOAD = "deploy"  # any kind that makes pods
    ADDRESS = "ip"


_KINDS = {
    "svc": (TargetKind.SERVICE, "Service"),
    "service": (TargetKind.SERVICE, "Service"),
    "services": (TargetKind.SERVICE, "Service"),
    "po": (TargetKind.POD, "Pod"),
    "pod": (TargetKind.POD, "Pod"),
    "pods": (TargetKind.POD, "Pod"),
    "deploy": (TargetKind.WORKLOAD, "Deployment"),
    "deployment": (TargetKind.WORKLOAD, "Deployment"),
    "sts": (TargetKind.WORKLOAD, "StatefulSet"),
    "statefulset": (TargetKind.WORKLOAD, "StatefulSet"),
    "ds": (TargetKind.WORKLOAD, "DaemonSet"),
    "daemonset": (TargetKind.WORKLOAD, "DaemonSet"),
    "job": (TargetKind.WORKLOAD, "Job"),
    "rs": (TargetKind.WORKLOAD, "ReplicaSet"),
    "replicaset": (TargetKind.WORKLOAD, "ReplicaSet"),
    "rc": (TargetKind.WORKLOAD, "ReplicationController"),
    "replicationcontroller": (TargetKind.WORKLOAD, "ReplicationController"),
    "cj": (TargetKind.WORKLOAD, "CronJob"),
    "lws": (TargetKind.WORKLOAD, "LeaderWorkerSet"),
    "isvc": (TargetKind.WORKLOAD, "InferenceService"),
    # Kinds of other projects by their names, as kubectl takes them.
    **{
        kind.lower(): (TargetKind.WORKLOAD, kind)
        for kind in (
            *("CronJob", "Rollout", "LeaderWorkerSet", "JobSet", "RayCluster", "RayService", "RayJob", "TrainJob"),
            *(
                "InferenceService",
                "LLMInferenceService",
                "PyTorchJob",
                "MPIJob",
                "TFJob",
                "DeploymentConfig",
                "CloneSet",
            ),
        )
    },
}
KIND_WORDS = frozenset(_KINDS)
# Kinds by the word that kubectl's users type; all others by their name.
_SHORT = {"Service": "svc", "Deployment": "deploy", "StatefulSet": "sts", "DaemonSet": "ds", "ReplicaSet": "rs"}
_MOST_ELSEWHERE = 3
NAMESPACE_WORDS = frozenset({"ns", "namespace", "namespaces"})
NODE_WORDS = frozenset({"no", "node", "nodes"})
_FORMS = (
    "Targets are svc/NAME[:PORT], pod/NAME, pod/NAMESPACE/NAME, deploy/NAME (also sts/, ds/, job/, …) or IP[:PORT]."
)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class Target(msgspec.Struct, frozen=True):
    """A parsed target. `port` is a number, a port's name, or None; `namespace` is empty where none was given."""

    kind: TargetKind
    api_kind: str  # "Service", "Pod", "Deployment", …; empty for an address
    name: str  # object name, or the address in canonical spelling
    port: int | str | None = None
    namespace: str = ""

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        if self.kind is TargetKind.ADDRESS:
            return f"[{self.name}]{port}" if ":" in self.name and port else f"{self.name}{port}"
        prefix = f"{self.namespace}/" if self.namespace else ""
        return f"{self.word}/{prefix}{self.name}{port}"

    @property
    def word(self) -> str:
        """The kind as users type it."""
        return _SHORT.get(self.api_kind, self.api_kind.lower()) or self.kind.value


def parse_target(text: str) -> Target:
    """Reads a target as users type it; raises InputError that says which forms there are.

    NAMESPACE/NAME is taken for NAME too ("svc/prod/my-llama-svc").
    """
    address = _parse_address(text)
    if address is not None:
        return address
    kind, slash, path = text.partition("/")
    if not slash and not text.strip("0123456789.:"):
        raise InputError(
            f"{text!r} is not an IP address",
            hint="Targets are also svc/NAME[:PORT], pod/NAME, pod/NAMESPACE/NAME and deploy/NAME.",
        )
    if not slash and _NAME.fullmatch(text.partition(":")[0]):
        raise InputError(f"{text!r} is not a target", hint=f"Did you mean svc/{text}, pod/{text} or deploy/{text}?")
    if not slash or kind.lower() not in _KINDS:
        named = _NAME.fullmatch(kind) and _NAME.fullmatch(path.partition(":")[0])
        raise InputError(
            f"{text!r} is not a target",
            hint=f"Did you mean pod/{text}, svc/{text} or deploy/{text} (KIND/NAMESPACE/NAME)?" if named else _FORMS,
        )
    namespace, _, path = path.rpartition("/")
    name, colon, port = path.partition(":")
    if not _NAME.fullmatch(name) or (namespace and not _NAME.fullmatch(namespace)):
        raise InputError(
            f"{name or text!r} is not a Kubernetes object name", hint="Names are lower case: a-z, 0-9, - and ."
        )
    target_kind, api_kind = _KINDS[kind.lower()]
    return Target(target_kind, api_kind, name, _parse_port(port, text) if colon else None, namespace)


def is_connection_end(text: str) -> bool:
    """Whether the text has the form of a connection's end: a kind and a name, an address, a CIDR, a label."""
    kind, slash, _ = text.partition("/")
    if slash and kind.lower() in KIND_WORDS | NAMESPACE_WORDS | NODE_WORDS:
        return True
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "=" in text
    return True


def _parse_address(text: str) -> Target | None:
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return Target(TargetKind.ADDRESS, "", canonical_ip(host), _parse_port(port, text) if port else None)


def _parse_port(port: str, text: str) -> int | str:
    if port.isdigit():
        number = whole_number(port)
        if number is None or not 1 <= number <= 65535:
            raise InputError(f"{text[:300]!r}: port {port[:20]} is not between 1 and 65535")
        return number
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", port):
        raise InputError(f"{text[:300]!r}: {port[:300]!r} is neither a port number nor a port name")
    return port


def not_found(what: str, name: str, known: Iterable[str], *, namespace: str = "") -> InputError:
    """The error for a name that does not exist, with the near matches that do."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or [k for k in known if name in k][:5]
    where = f" in namespace {namespace}" if namespace else ""
    if near:
        hint = "Did you mean " + ", ".join(near) + "?"
    elif known:
        hint = "There are: " + ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    else:
        hint = f"There is no {what}{where} at all. Is the namespace right? (-n, -A)"
    return InputError(f"no {what} {name!r}{where}", hint=hint)


def elsewhere_only(what: str, word: str, name: str, namespace: str, others: Sequence[str]) -> InputError:
    """The error for a name that only other namespaces have; `word` is the kind as targets have it."""
    forms = " or ".join(f"{word}/{other}/{name}" for other in others[:_MOST_ELSEWHERE])
    one_namespace = f", or -n {sh(others[0])}" if len(others) == 1 else ""
    return InputError(f"no {what} {name!r} in namespace {namespace}", hint=f"Did you mean {forms}{one_namespace}?")


def must_be_read(snapshot: ClusterSnapshot, kind: str, namespace: str) -> None:
    """Raises InputError with the reason where the objects of a kind in a namespace ("": in all) were not read: nothing is known
    of them."""
    where = f" in namespace {namespace}" if namespace else ""
    for left_out in snapshot.left_out:
        if left_out.kind == kind and (not left_out.namespace or left_out.namespace != namespace):
            raise InputError(f"objects of kind {kind}{where} were not read: {left_out.reason}", hint=left_out.hint)


def pod_named(snapshot: ClusterSnapshot, namespace: str, name: str) -> Pod:
    """Raises InputError, with near matches, where there is no such pod."""
    pod = snapshot.pod(namespace, name)
    if pod is None:
        must_be_read(snapshot, "Pod", namespace)
        elsewhere = sorted(p.metadata.namespace for p in snapshot.pods if p.metadata.name == name)
        if elsewhere:
            raise elsewhere_only("pod", "pod", name, namespace, elsewhere)
        known = (p.metadata.name for p in snapshot.pods if p.metadata.namespace == namespace)
        raise not_found("pod", name, known, namespace=namespace)
    return pod


def service_named(snapshot: ClusterSnapshot, namespace: str, name: str) -> Service:
    """Raises InputError, with near matches, where there is no such Service."""
    service = snapshot.service(namespace, name)
    if service is None:
        must_be_read(snapshot, "Service", namespace)
        elsewhere = sorted(s.metadata.namespace for s in snapshot.services if s.metadata.name == name)
        if elsewhere:
            raise elsewhere_only("Service", "svc", name, namespace, elsewhere)
        known = (s.metadata.name for s in snapshot.services if s.metadata.namespace == namespace)
        raise not_found("Service", name, known, namespace=namespace)
    return service
