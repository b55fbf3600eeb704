"""What the tool says, and how it knows: findings with their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec


def counted(number: int, noun: str) -> str:
    """A number of things: "1 packet", "2 packets", "2 queries"."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"
    return f"{number} {plural}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Certainty(Enum):
    """How a statement is known."""

    OBSERVED = "observed"  # the kernel (or the API server, of its own state) reported it
    DERIVED = "derived"  # it follows from observed facts and the node's rules
    ASSUMED = "assumed"  # from the API objects only
    UNKNOWN = "unknown"


class Severity(Enum):
    """How bad a finding is, worst last."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class ObjectRef(msgspec.Struct, frozen=True):
    """Names one Kubernetes object; `namespace` is empty for cluster-scoped kinds."""

    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Evidence(msgspec.Struct, frozen=True):
    """One fact behind a finding. `field` is a path in `object` ("spec.ports[0].targetPort")."""

    statement: str
    certainty: Certainty
    object: ObjectRef | None = None
    field: str = ""
    value: Any = None
    node: str = ""


class Remedy(msgspec.Struct, frozen=True):
    """What the user may do. `command` and `yaml` can be pasted as they are; the tool never runs them.

    `trial` is what came of applying them to a copy ("tried: …", "not tried"); empty where there is nothing to apply.
    """

    text: str
    command: str = ""
    yaml: str = ""
    trial: str = ""


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong, or worth knowing, said once, with its evidence."""

    check: str  # kebab-case name of the check or rule that found it
    title: str
    severity: Severity
    evidence: tuple[Evidence, ...]
    object: ObjectRef | None = None
    detail: str = ""
    remedy: Remedy | None = None


class NotChecked(msgspec.Struct, frozen=True):
    """Something that could not be looked at, and why. Never the same as "nothing found"."""

    what: str
    reason: str
