"""The matrix of connections as they arrive: between pods of a mesh in its tunnel, on one port for all."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import msgspec

from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.flows.tunnels import Membership, Meshes
from kubectl_genainet.policy.reach.matrix import Matrix


class _Tunnel(NamedTuple):
    """The classes of which every pod's connections go through a mesh's tunnel, those of which any pod's may, and who may
    reach whom on the tunnel's port."""

    every: int
    some: int
    matrix: Matrix


class ArrivingMatrices:
    """The matrices of one engine. What is the same for every port, the tunnels and who is in them, is looked up once."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    def on(self, protocol: str, port: int) -> Matrix:
        """Who may reach whom on a port. Where not all pods of a class are in the mesh, it is known only where both ways
        agree."""
        matrix = self._engine.matrix(protocol, port)
        for tunnel in self._tunnels if protocol == "TCP" else ():
            if port != tunnel.matrix.port:
                matrix = _through(matrix, tunnel)
        return matrix

    @cached_property
    def _tunnels(self) -> list[_Tunnel]:
        tunnels = []
        meshes = Meshes(self._engine.snapshot)
        for mesh_port in meshes.ports:
            every = some = 0
            for pod_class in self._engine.rows.classes.classes:
                memberships = {meshes.membership(mesh_port, *pod) for pod in pod_class.pods}
                every |= (memberships == {Membership.ALWAYS}) << pod_class.index
                some |= (memberships != {Membership.NEVER}) << pod_class.index
            tunnels.append(_Tunnel(every, some, self._engine.matrix("TCP", mesh_port)))
        return tunnels


def _through(plain: Matrix, tunnel: _Tunnel) -> Matrix:
    every, some, inside = tunnel
    allowed, unknown = list(plain.allowed), list(plain.unknown)
    for i in range(len(plain.classes)):
        if not some >> i & 1:
            continue
        tunnelled = every if every >> i & 1 else 0
        mixed = some & ~tunnelled
        both = plain.allowed[i] & inside.allowed[i]
        either = plain.allowed[i] | plain.unknown[i] | inside.allowed[i] | inside.unknown[i]
        allowed[i] = plain.allowed[i] & ~some | inside.allowed[i] & tunnelled | both & mixed
        unknown[i] = plain.unknown[i] & ~some | inside.unknown[i] & tunnelled | either & ~both & mixed
    return msgspec.structs.replace(plain, allowed=tuple(allowed), unknown=tuple(unknown))
