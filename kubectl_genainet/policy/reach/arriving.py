"""The matrix of connections as they arrive: between pods of Istio's ambient mesh in its tunnel, on one port for all."""

from __future__ import annotations

import msgspec

from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.flows.arrival import AMBIENT_LABEL, HBONE, in_ambient
from kubectl_genainet.policy.model import pod_endpoint
from kubectl_genainet.policy.reach.matrix import Matrix


def arriving_matrix(engine: PolicyEngine, protocol: str, port: int) -> Matrix:
    """Who may reach whom on a port. Where not all pods of a class are in the mesh, it is known only where both ways agree."""
    plain = engine.matrix(protocol, port)
    every, some = _ambient(engine) if protocol == "TCP" and port != HBONE else (0, 0)
    if not some:
        return plain
    tunnel = engine.matrix("TCP", HBONE)
    allowed, unknown = list(plain.allowed), list(plain.unknown)
    for i in range(len(plain.classes)):
        if not some >> i & 1:
            continue
        tunnelled = every if every >> i & 1 else 0
        mixed = some & ~tunnelled
        both = plain.allowed[i] & tunnel.allowed[i]
        either = plain.allowed[i] | plain.unknown[i] | tunnel.allowed[i] | tunnel.unknown[i]
        allowed[i] = plain.allowed[i] & ~some | tunnel.allowed[i] & tunnelled | both & mixed
        unknown[i] = plain.unknown[i] & ~some | tunnel.unknown[i] & tunnelled | either & ~both & mixed
    return msgspec.structs.replace(plain, allowed=tuple(allowed), unknown=tuple(unknown))


def _ambient(engine: PolicyEngine) -> tuple[int, int]:
    """The classes of which every pod is in the ambient mesh, and those of which any is."""
    every = some = 0
    for one in engine.rows.classes.classes:
        if AMBIENT_LABEL in one.party.labels or AMBIENT_LABEL in one.party.namespace_labels:
            found = [in_ambient(engine.snapshot, pod_endpoint(*pod)) for pod in one.pods]
            every |= all(found) << one.index
            some |= any(found) << one.index
    return every, some
