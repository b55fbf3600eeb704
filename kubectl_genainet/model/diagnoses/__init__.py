"""Everything that `trace`, `drops`, `dns`, `rules`, `fabric` and `diagnose` can say: what is seen, what it means, what to do.

A diagnosis is made in a module of this folder, or beside the one function that says it; docs/diagnoses.md is made of them.
`doctor`'s checks have a registry of their own.
"""

from collections.abc import Mapping
from types import MappingProxyType

from kubectl_genainet.model.diagnoses import connections, dns, fabric, kernel, kube_proxy, rules, sockets
from kubectl_genainet.model.diagnoses.diagnosis import _ALL, _BY_REASON, Diagnosis, Sentence, Suspect, Topic

DIAGNOSES: Mapping[str, Diagnosis] = MappingProxyType(_ALL)
# kernel reason -> the diagnosis that a sentence is enough for, and that sentence
BY_REASON: Mapping[str, tuple[Diagnosis, str]] = MappingProxyType(_BY_REASON)


def suspects_of(check: str) -> frozenset[Suspect]:
    """What a finding of that name blames; nothing where it is of another registry."""
    return DIAGNOSES[check].blames if check in DIAGNOSES else frozenset()


__all__ = [
    "BY_REASON",
    "DIAGNOSES",
    "Diagnosis",
    "Sentence",
    "Suspect",
    "Topic",
    "connections",
    "dns",
    "fabric",
    "kernel",
    "kube_proxy",
    "rules",
    "sockets",
    "suspects_of",
]
