"""Resource claims: what they ask for, and which classes are of network devices or accelerators."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from kubectl_genainet.doctor.objects.raw import items, mapping, strings, text

GROUP = "resource.k8s.io"
_NETWORK = re.compile(
    r"(^|[^a-z])(dra\.?net|sriov(network)?|rdma|nic|roce|infiniband|efa|mrdma|netdev)([^a-z]|$)", re.I
)
_ACCELERATOR = re.compile(r"(^|[^a-z])(gpu|mig|tpu|neuron|gaudi)([^a-z]|$)", re.I)


def is_network(device_class: str) -> bool:
    return bool(_NETWORK.search(device_class))


def is_accelerator(device_class: str) -> bool:
    return bool(_ACCELERATOR.search(device_class))


def options(claim_spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(request, what it asks for) of a claim's requests: `exactly` and `firstAvailable` since v1, the request itself
    before."""
    for request in items(claim_spec, "devices", "requests"):
        for option in [mapping(request, "exactly") or request, *items(request, "firstAvailable")]:
            if text(option, "deviceClassName"):
                yield text(request, "name"), option


def count(option: dict[str, Any]) -> int:
    """How many devices a request asks for; 1 where it does not say."""
    asked = option.get("count", 1)
    return asked if isinstance(asked, int) else 1


def requests(claim_spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(request, class) of a claim's requests."""
    for name, option in options(claim_spec):
        yield name, text(option, "deviceClassName")


def least(claim_spec: dict[str, Any], which: Callable[[str], bool]) -> int:
    """How many devices of some classes a claim gets at least: of a request's alternatives the smallest."""
    counts: dict[str, int] = {}
    for name, option in options(claim_spec):
        number = count(option) if which(text(option, "deviceClassName")) else 0
        counts[name] = min(counts.get(name, number), number)
    return sum(counts.values())


_PLACES = ("pcieRoot", "numa", "node")


def near_accelerators(claim_spec: dict[str, Any]) -> bool:
    """Whether every request for a network device is tied to one for an accelerator, by a constraint on where both are: one
    for all requests, or one that names these (REQUEST, REQUEST/ALTERNATIVE)."""
    network = {name for name, device_class in requests(claim_spec) if is_network(device_class)}
    for constraint in items(claim_spec, "devices", "constraints"):
        if not any(place in text(constraint, "matchAttribute") for place in _PLACES):
            continue
        named = set(strings(constraint, "requests"))
        bound = {
            (name, text(option, "deviceClassName"))
            for name, option in options(claim_spec)
            if not named or named & {name, f"{name}/{text(option, 'name')}"}
        }
        if any(is_accelerator(device_class) for _, device_class in bound):
            network -= {name for name, _ in bound}
    return not network
