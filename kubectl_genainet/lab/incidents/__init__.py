"""Faults that can be made in a lab and undone, each with the diagnosis that a tool should come to.

An incident is a pair of functions in one of this package's modules: one makes the fault, the other undoes exactly it.
Both take the lab and a memo, which is saved before anything is done.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from kubectl_genainet.lab.change import Lab, changing
from kubectl_genainet.lab.state import Memo
from kubectl_genainet.model.results.path import Verdict
from kubectl_genainet.model.target import not_found

Step = Callable[[Lab, Memo], None]
_MODULES = ("policies", "services", "datapath", "backends", "streams", "dns")
_REGISTRY: dict[str, Incident] = {}


@dataclass(frozen=True, slots=True)
class Expected:
    """The known diagnosis, as measured on Linux 6.18 with iptables-nft.

    `reason` is the kernel's name of it, "" where skb:kfree_skb reports nothing; `hook` is netfilter's, in lower case,
    "" where the drop is elsewhere; `location` is the kernel function that drops (other kernels, and iptables-legacy,
    name another); `counter` is what grows in /proc/net/netstat of the pod where there is no other trace.
    """

    verdict: Verdict
    reason: str = ""
    hook: str = ""
    location: str = ""
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """What `diagnose` names first, asked about `target` for `watch_s` seconds: the diagnosis, and a part of its title."""

    diagnosis: str
    title: str
    target: str = "svc/my-llama-svc"
    watch_s: int = 8


class Symptom(Enum):
    """What users notice; docs/symptoms.md has a row for each."""

    HANGS = "Requests hang, and time out in the end"
    REFUSED = "Connection refused"
    SOME_FAIL = "One request in a few fails"
    RESET = "Connection reset by peer"
    CUT_SHORT = "Short answers arrive, long ones stop in the middle"
    SLOW = "Answers are slow, or the first token is late"
    NAMES = "Names are not found, or lookups take seconds"
    POLICY_WITHOUT_EFFECT = "A policy was applied, and traffic passes all the same"
    ONE_NODE = "New connections fail on one node only"


@dataclass(slots=True)
class Incident:
    """A fault. `summary` is the first line of the docstring, `description` the rest."""

    name: str
    expected: Expected
    cause: Cause
    symptom: Symptom
    make: Step
    clear: Step

    @property
    def summary(self) -> str:
        return (self.make.__doc__ or "").strip().splitlines()[0]

    @property
    def description(self) -> str:
        lines = (self.make.__doc__ or "").strip().splitlines()[1:]
        return "\n".join(line.strip() for line in lines).strip()


def incident(name: str, expected: Expected, cause: Cause, *, felt: Symptom, clear: Step) -> Callable[[Step], Step]:
    """Registers the decorated function as the one that makes the incident."""

    def register(make: Step) -> Step:
        _REGISTRY[name] = Incident(name, expected, cause, felt, make, clear)
        return make

    return register


def incidents() -> dict[str, Incident]:
    """All incidents, by name, in the order of the modules; whichever was imported first."""
    modules = [importlib.import_module(f"{__name__}.{module}").__name__ for module in _MODULES]
    return dict(sorted(_REGISTRY.items(), key=lambda item: modules.index(item[1].make.__module__)))


def find_incident(name: str) -> Incident:
    known = incidents()
    if name not in known:
        raise not_found("incident", name, known)
    return known[name]


def make_incident(lab_name: str, name: str) -> Incident:
    """Makes an incident; one that is there already stays as it is."""
    incident = find_incident(name)
    with changing(lab_name) as lab:
        if name not in lab.record.incidents:
            memo = lab.record.incidents[name] = Memo()
            incident.make(lab, memo)
    return incident


def clear_incident(lab_name: str, name: str) -> bool:
    """Undoes an incident, also one that was made only in part; False where it was not there."""
    incident = find_incident(name)
    with changing(lab_name) as lab:
        if name not in lab.record.incidents:
            return False
        memo = lab.record.incidents[name]
        incident.clear(lab, memo)
        del lab.record.incidents[name]
        lab.drop_rules(name)
        lab.sync()
    return True


def restore(lab: Lab, memo: Memo) -> None:
    """The clearing step of an incident that changed objects, rules and programs only."""
    lab.restore_objects(memo)
