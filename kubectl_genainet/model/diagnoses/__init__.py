"""Everything that `trace`, `drops` and `dns` can say, once: what is observed, what it means, what to do.

A new diagnosis is an entry here; docs/diagnoses.md is made of them. `doctor`'s checks have a registry of their own.
"""

from collections.abc import Mapping

from kubectl_genainet.model.diagnoses.connections import CONNECTIONS
from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis
from kubectl_genainet.model.diagnoses.dns import DNS
from kubectl_genainet.model.diagnoses.kernel import KERNEL
from kubectl_genainet.model.diagnoses.rules import RULES

GROUPS: Mapping[str, tuple[Diagnosis, ...]] = {
    "Rules, policies and the connection table": RULES,
    "The kernel": KERNEL,
    "Connections": CONNECTIONS,
    "DNS": DNS,
}
DIAGNOSES: Mapping[str, Diagnosis] = {one.name: one for group in GROUPS.values() for one in group}

__all__ = ["DIAGNOSES", "GROUPS", "Diagnosis"]
