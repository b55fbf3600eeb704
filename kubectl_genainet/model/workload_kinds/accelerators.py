"""Which resources of a pod are GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# An entry that ends in "-" stands for all that begin so.
GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "nvidia.com/mig-")


def gpus_of(pod: dict[str, Any]) -> int:
    """How many GPUs a pod's containers ask for, its spec as the API has it. What is no number is none."""
    spec = pod.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    return sum(_amounts(c) for c in containers if isinstance(c, dict)) if isinstance(containers, list) else 0


def _amounts(container: dict[str, Any]) -> int:
    resources = container.get("resources")
    limits = resources.get("limits") if isinstance(resources, dict) else None
    return sum(_numbers(limits.items())) if isinstance(limits, dict) else 0


def _numbers(limits: Iterable[tuple[str, Any]]) -> Iterable[int]:
    for name, amount in limits:
        if any(name == known or (known.endswith("-") and name.startswith(known)) for known in GPU_RESOURCES):
            text = str(amount)
            yield int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
