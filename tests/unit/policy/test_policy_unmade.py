"""Where no patch can be made, or no new policy, the reason and what to do by hand are said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.policy import Patcher
from kubectl_genainet.policy.patches.unmade import why_no_patch
from tests.unit.policy.policy_cluster import Raw, admin, ask, engine, namespace, netpol, pod
from tests.unit.policy.test_policy_commands import run, write

PODS = (namespace("ai"), namespace("web"), pod("ai/llama", "10.1.0.1"), pod("web/chat", "10.2.0.1"))
DENY = {"action": "Deny", "from": [{"namespaces": {}}]}
EVERYWHERE: dict[str, Any] = {"subject": {"namespaces": {}}}


def why(*policies: Raw, flow: tuple[str, str] = ("web/chat", "ai/llama"), protocol: str = "TCP") -> tuple[str, bool]:
    """The reason, and whether there is a patch all the same."""
    e = engine(*PODS, *policies)
    answer = ask(e, *flow, protocol=protocol)
    patch = Patcher(e).patch(answer.flow)
    return why_no_patch(e, answer, patch), patch is not None


def test_before_priority_0_no_policy_can_go() -> None:
    reason, patched = why(admin("AdminNetworkPolicy", "a", **EVERYWHERE, priority=0, ingress=[DENY]))
    assert patched
    assert reason.startswith("No new policy goes before AdminNetworkPolicy a: its priority is 0, the first.")
    assert "Add the exception to it, before the rule that denies, or give it a later priority" in reason


def test_priorities_that_are_all_taken_leave_no_room_either() -> None:
    others = [admin("AdminNetworkPolicy", f"o{i}", **EVERYWHERE, priority=i) for i in range(3)]
    reason, patched = why(*others, admin("AdminNetworkPolicy", "a", **EVERYWHERE, priority=3, ingress=[DENY]))
    assert patched and "priorities 0 to 2 are all taken" in reason


@pytest.mark.parametrize(("kind", "most"), [("AdminNetworkPolicy", 100), ("ClusterNetworkPolicy", 25)])
def test_a_full_policy_of_priority_0_has_no_patch_and_both_reasons(kind: str, most: int) -> None:
    tier = {"tier": "Admin"} if kind == "ClusterNetworkPolicy" else {}
    full = admin(kind, "a", **EVERYWHERE, **tier, priority=0, ingress=[DENY] * most)
    reason, patched = why(full)
    assert not patched
    assert "its priority is 0" in reason
    assert f"No rule can be added to {kind} a: it has {most} in ingress, the most that the API takes." in reason
    assert f"narrow rule 1 of {kind} a" in reason


def test_a_deny_rule_of_cilium_has_to_be_narrowed() -> None:
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "c", "namespace": "ai"},
        "spec": {"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"]}]},
    }
    reason, patched = why(policy)
    assert not patched and "rule 1 of CiliumNetworkPolicy ai/c denies it" in reason and "Narrow that rule" in reason


def test_a_name_is_admitted_by_its_addresses() -> None:
    reason, patched = why(netpol("web/closed", policyTypes=["Egress"]), flow=("web/chat", "huggingface.co"))
    assert not patched and "can't name huggingface.co, only addresses" in reason


def test_nothing_is_said_where_there_is_a_new_policy_or_nothing_is_denied() -> None:
    assert why(netpol("ai/closed")) == ("", True)
    assert why() == ("", False)


def test_the_reason_stands_in_text_and_json(tmp_path: Path) -> None:
    first = admin("AdminNetworkPolicy", "a", **EVERYWHERE, priority=0, ingress=[DENY])
    command = (
        "explain",
        "--manifests",
        str(write(tmp_path / "all.json", *PODS, first)),
        "pod/web/chat",
        "pod/ai/llama:80",
    )
    reason = "No new policy goes before AdminNetworkPolicy a: its priority is 0, the first."
    assert reason in " ".join(run(*command).stdout.split())
    assert json.loads(run(*command, "-o", "json").stdout)["no_patch"].startswith(reason)
