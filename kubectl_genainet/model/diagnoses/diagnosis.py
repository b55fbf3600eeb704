"""The type of a diagnosis, and the registry that every one enters by being made."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.finding import Evidence, Finding, ObjectRef, Remedy, Severity


class Topic(Enum):
    """The chapters of docs/diagnoses.md."""

    RULES = "Rules, policies and the connection table"
    KERNEL = "The kernel"
    SOCKETS = "Sockets"
    CONNECTIONS = "Connections"
    DNS = "DNS"
    KUBE_PROXY = "What kube-proxy has programmed"
    FABRIC = "Between GPUs"


class Suspect(Enum):
    """What `diagnose` clears or blames, in the order of a packet's way."""

    DNS = "dns"
    POLICIES = "policies"
    ENDPOINTS = "endpoints"
    RULES = "rules"
    MTU = "mtu"
    CONNTRACK = "conntrack"
    NODES = "nodes"
    ANSWERS = "answers"  # of the application behind a Service


class Sentence:
    """What a diagnosis says of a drop with one of the kernel's `reasons`, where that needs no more than a sentence.

    Reasons are named as in include/net/dropreason-core.h, without their prefix; one that a kernel does not know never
    comes. In `text`, `{place}` is the pod or node in whose namespace the packet was, `{device}` the device.
    """

    __slots__ = ("reasons", "text")

    def __init__(self, text: str, *reasons: str) -> None:
        self.text, self.reasons = text, reasons


class Diagnosis(msgspec.Struct, frozen=True):
    """One thing that `trace`, `drops`, `dns`, `rules` or `diagnose` can say. Making it enters it into the registry.

    `name` is kebab-case, the `check` of the JSON. `severity` is the usual one: where the evidence makes it lighter or
    heavier, whoever says it gives another. `observed` is what the kernel reports, `meaning` what that means to an operator,
    `todo` what to do about it, `source` where the rule is from. Each is one line of the docs.

    `diagnose` folds a `symptom` (it shows that packets were lost, not why) under a cause of the same flow or place, and what
    `follows` from another diagnosis under that one; a cause `blames` suspects. With `policies_judge` the policies' verdict
    is put beside a drop. What is `downstream` may come of a server that waits for calls of its own: `diagnose` folds it under a
    cause that hit those. What `lets_pass` packets that should not pass loses and delays none: no symptom comes of it.
    """

    topic: Topic
    name: str
    severity: Severity
    observed: str
    meaning: str
    todo: str
    source: str = ""
    mild: bool = False  # no fault as long as connections come about all the same
    sentences: tuple[Sentence, ...] = ()
    symptom: bool = False
    policies_judge: bool = False
    blames: frozenset[Suspect] = frozenset()
    follows: frozenset[str] = frozenset()
    downstream: bool = False
    lets_pass: bool = False

    def __post_init__(self) -> None:
        if self.name in _ALL:
            raise ValueError(f"two diagnoses are named {self.name}")
        _ALL[self.name] = self
        for sentence in self.sentences:
            for reason in sentence.reasons:
                if reason in _BY_REASON:
                    raise ValueError(f"two diagnoses have a sentence for {reason}")
                _BY_REASON[reason] = (self, sentence.text)

    def finding(
        self,
        title: str,
        evidence: tuple[Evidence, ...],
        object: ObjectRef | None = None,
        *,
        severity: Severity | None = None,
        detail: str = "",
        remedy: Remedy | None = None,
    ) -> Finding:
        """This diagnosis, of one case; the severity is its own unless another is given."""
        return Finding(self.name, title, severity or self.severity, evidence, object, detail, remedy)


_ALL: dict[str, Diagnosis] = {}
_BY_REASON: dict[str, tuple[Diagnosis, str]] = {}
