"""Two incidents of backends at once hit two pods, so that both are felt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kubectl_genainet.lab.incidents.backends import sound_pod
from kubectl_genainet.lab.state import Memo

PODS = [{"kind": "Pod", "metadata": {"name": f"llama-{n}", "namespace": "default"}} for n in range(3)]


def chosen(*behaviours: dict[str, dict[str, Any]]) -> str:
    incidents = {str(number): Memo(behaviours=changed) for number, changed in enumerate(behaviours)}
    lab: Any = SimpleNamespace(record=SimpleNamespace(incidents=incidents), pods_of=lambda _: PODS)
    return str(sound_pod(lab)["metadata"]["name"])


def test_the_last_pod_that_no_other_incident_has_changed_is_chosen() -> None:
    assert chosen() == "llama-2"
    assert chosen({"default/llama-2": {"reset": True}}) == "llama-1"
    assert chosen({"default/llama-2": {"reset": True}}, {"default/llama-1": {"stall": True}}) == "llama-0"


def test_a_pod_that_streams_without_a_fault_is_sound_and_without_a_sound_one_it_is_the_last() -> None:
    assert chosen({"default/llama-0": {"stream": {}}, "default/llama-2": {"stream": {"first_ms": 3}}}) == "llama-1"
    assert chosen({f"default/llama-{n}": {"unready": True} for n in range(3)}) == "llama-2"
