"""The matrix of connections as they arrive: between pods of Istio's ambient mesh in its tunnel, on one port for all."""

from __future__ import annotations

from functools import cached_property

import msgspec

from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.flows.arrival import HBONE, in_ambient
from kubectl_genainet.policy.matching.mesh import AMBIENT_LABEL
from kubectl_genainet.policy.model import pod_endpoint
from kubectl_genainet.policy.reach.matrix import Matrix


class ArrivingMatrices:
    """The matrices of one engine. What is the same for every port, the tunnel and who is in it, is looked up once."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    def on(self, protocol: str, port: int) -> Matrix:
        """Who may reach whom on a port. Where not all pods of a class are in the mesh, it is known only where both ways
        agree."""
        plain = self._engine.matrix(protocol, port)
        every, some = self._ambient if protocol == "TCP" and port != HBONE else (0, 0)
        if not some:
            return plain
        tunnel = self._tunnel
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

    @cached_property
    def _tunnel(self) -> Matrix:
        return self._engine.matrix("TCP", HBONE)

    @cached_property
    def _ambient(self) -> tuple[int, int]:
        """The classes of which every pod is in the ambient mesh, and those of which any is."""
        every = some = 0
        for one in self._engine.rows.classes.classes:
            if AMBIENT_LABEL in one.party.labels or AMBIENT_LABEL in one.party.namespace_labels:
                found = [in_ambient(self._engine.snapshot, pod_endpoint(*pod)) for pod in one.pods]
                every |= all(found) << one.index
                some |= any(found) << one.index
        return every, some
