"""Resource claims: what they ask for, and which classes are of network devices or accelerators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.objects.raw import items, mapping, text

GROUP = "resource.k8s.io"
_NETWORK = re.compile(r"(^|[^a-z])(dra\.?net|sriov|rdma|nic|roce|infiniband|efa|mrdma|netdev)([^a-z]|$)", re.I)
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
