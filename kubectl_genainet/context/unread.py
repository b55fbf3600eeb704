"""Which objects the reader of a cluster may not list."""

from __future__ import annotations

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.target import must_be_read

# Kinds that nearly every answer hangs on.
_NEEDED_OF_NAMESPACE = ("Pod", "Service", "EndpointSlice", "NetworkPolicy")
_NEEDED = (*_NEEDED_OF_NAMESPACE, "Namespace", "Node")


def unread(snapshot: ClusterSnapshot, kind: str, namespace: str) -> str:
    """Why nothing is known of the objects of a kind in a namespace; "" where they were read."""
    try:
        must_be_read(snapshot, kind, namespace)
    except InputError as error:
        return error.message
    return ""


def unread_of(snapshot: ClusterSnapshot, namespace: str) -> tuple[str, ...]:
    """The kinds that nearly every answer hangs on and that were not read of the namespace ("": of all, with nodes)."""
    return tuple(
        left_out.kind
        for left_out in snapshot.left_out
        if left_out.kind in (_NEEDED if not namespace else _NEEDED_OF_NAMESPACE)
        and not left_out.partly
        and (not left_out.namespace or left_out.namespace != namespace)
    )


def unread_kinds(snapshot: ClusterSnapshot, namespace: str = "") -> str:
    """What was refused of the kinds that matter most, and which role may list them; "" where nothing was.

    `namespace`: that its objects were read is enough.
    """
    refused = [left_out for kind in _NEEDED for left_out in snapshot.left_out if left_out.kind == kind]
    whole = [left_out.kind for left_out in refused if _is_forbidden(left_out)]
    partly = [left_out for left_out in refused if left_out.namespace and left_out.namespace != namespace]
    told = []
    if whole:
        told.append(f"{', '.join(whole)} may not be listed")
    if partly:
        kinds = ", ".join(left_out.kind for left_out in partly)
        told.append(f"{kinds} may be listed only in namespace {partly[0].namespace}")
    if not told:
        return ""
    return f"{'; '.join(told)}: what hangs on the others is not known. The ClusterRole genainet-view may list them"


def _is_forbidden(left_out: LeftOut) -> bool:
    return not left_out.namespace and "is forbidden" in left_out.reason
