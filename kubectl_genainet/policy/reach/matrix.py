"""Who may reach whom: the verdicts between all classes of pods, for one port."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubectl_genainet.policy.model import Direction, PolicyVerdict
from kubectl_genainet.policy.reach.classes import PodClass
from kubectl_genainet.policy.reach.rows import MatrixRows

_SET = ord("1")


class Matrix(msgspec.Struct, frozen=True):
    """Row i is the source class i, bit j of `allowed[i]` and `unknown[i]` the destination class j; the rest is denied.

    A pod to itself is not in it, nor is a node's access to the pods that it runs (both always pass).
    """

    protocol: str
    port: int
    classes: tuple[PodClass, ...]
    allowed: tuple[int, ...]
    unknown: tuple[int, ...]

    @property
    def doubted(self) -> Matrix:
        """With what is allowed left open."""
        may = tuple(allowed | unknown for allowed, unknown in zip(self.allowed, self.unknown, strict=True))
        return msgspec.structs.replace(self, allowed=(0,) * len(may), unknown=may)

    def verdict(self, source: int, destination: int) -> PolicyVerdict:
        if self.allowed[source] >> destination & 1:
            return PolicyVerdict.ALLOW
        return PolicyVerdict.UNKNOWN if self.unknown[source] >> destination & 1 else PolicyVerdict.DENY


def matrix_of(rows: MatrixRows, protocol: str, port: int) -> Matrix:
    """The whole matrix for one protocol and port."""
    classes = rows.classes.classes
    indices = range(len(classes))
    egress = [rows.row(i, Direction.EGRESS, protocol, port) for i in indices]
    ingress = [rows.row(i, Direction.INGRESS, protocol, port) for i in indices]
    may_enter = transposed([allow for allow, _ in ingress])
    sure = [allow & ~deny for allow, deny in ingress]
    surely_enter = (
        may_enter if all(allow == s for (allow, _), s in zip(ingress, sure, strict=True)) else transposed(sure)
    )
    allowed = tuple((allow & ~deny) & surely_enter[i] for i, (allow, deny) in enumerate(egress))
    unknown = tuple(allow & may_enter[i] & ~allowed[i] for i, (allow, _) in enumerate(egress))
    return Matrix(protocol, port, classes, allowed, unknown)


def transposed(columns: Sequence[int]) -> list[int]:
    """From sets of sources by destination to sets of destinations by source.

    Many destinations have the same set: sources are compared by a string with one character for each different set, and
    the union of destinations is made once for each different string.
    """
    size = len(columns)
    destinations: dict[int, int] = {}
    for j, column in enumerate(columns):
        destinations[column] = destinations.get(column, 0) | 1 << j
    text = bytearray(len(destinations) * size)  # filled in place: joined strings take it twice
    for number, column in enumerate(destinations):
        text[number * size : (number + 1) * size] = format(column, f"0{size}b")[::-1].encode()
    targets = list(destinations.values())
    unions: dict[bytes, int] = {}
    rows = []
    for i in range(size):
        signature = bytes(text[i::size])
        union = unions.get(signature)
        if union is None:
            union = 0
            for bit, target in zip(signature, targets, strict=True):
                if bit == _SET:
                    union |= target
            unions[signature] = union
        rows.append(union)
    return rows
