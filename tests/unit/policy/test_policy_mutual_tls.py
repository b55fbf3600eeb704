"""STRICT mutual TLS: what the policies admit, a workload's proxy may refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.policy_cluster import Raw, ask, engine, namespace, netpol, pod, unevaluated

PROXY: Raw = {"name": "istio-proxy"}


def meshed(name: str, ip: str, **more: Any) -> Raw:
    made = pod(name, ip, **more)
    made["spec"].setdefault("containers", []).append(PROXY)
    return made


def authentication(name: str, mode: str, **spec: Any) -> Raw:
    where, _, short = name.partition("/")
    metadata = {"name": short, "namespace": where}
    mtls = {"mtls": {"mode": mode}} if mode else {}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": metadata,
        "spec": {**mtls, **spec},
    }


PODS = (namespace("ai"), meshed("ai/llama", "10.1.0.3"), meshed("ai/rag", "10.1.0.4"), pod("ai/plain", "10.1.0.5"))
STRICT = authentication("ai/default", "STRICT")
LLAMA = {"selector": {"matchLabels": {"app": "llama"}}}


def verdict(source: str, *objects: Raw, port: int = 8080, protocol: str = "TCP") -> str:
    return ask(engine(*PODS, *objects), source, "ai/llama", port, protocol).verdict.value


@pytest.mark.parametrize(
    ("source", "expected"), [("ai/plain", "unknown"), ("ai/rag", "allow"), ("203.0.113.9", "unknown")]
)
def test_a_client_without_a_proxy_may_be_refused(source: str, expected: str) -> None:
    assert verdict(source, STRICT) == expected
    assert verdict(source) == "allow"


def test_only_connections_are_authenticated_and_a_denial_stays_one() -> None:
    assert verdict("ai/plain", STRICT, protocol="UDP") == "allow"
    assert verdict("ai/plain", STRICT, netpol("ai/closed", podSelector={})) == "deny"


def test_a_workload_without_a_proxy_is_not_concerned() -> None:
    assert ask(engine(*PODS, STRICT), "203.0.113.9", "ai/plain", 80).verdict.value == "allow"


@pytest.mark.parametrize(
    ("objects", "port", "expected"),
    [
        ((authentication("istio-system/default", "STRICT"),), 8080, "unknown"),
        ((authentication("istio-system/default", "STRICT"), authentication("ai/default", "PERMISSIVE")), 8080, "allow"),
        ((STRICT, authentication("ai/llama", "PERMISSIVE", **LLAMA)), 8080, "allow"),
        ((STRICT, authentication("ai/llama", "UNSET", **LLAMA)), 8080, "unknown"),
        ((STRICT, authentication("ai/llama", "", **LLAMA, portLevelMtls={"8080": {"mode": "DISABLE"}})), 8080, "allow"),
        ((STRICT, authentication("ai/llama", "", **LLAMA, portLevelMtls={"8080": {"mode": "DISABLE"}})), 80, "unknown"),
        ((authentication("ai/llama", "", **LLAMA, portLevelMtls={"80": {"mode": "STRICT"}}),), 80, "unknown"),
        ((authentication("ai/llama", "", **LLAMA, portLevelMtls={"80": {"mode": "STRICT"}}),), 8080, "allow"),
        ((authentication("other/default", "STRICT"),), 8080, "allow"),
    ],
)
def test_the_narrowest_decides(objects: tuple[Raw, ...], port: int, expected: str) -> None:
    assert verdict("ai/plain", *objects, port=port) == expected


def test_it_is_named_once() -> None:
    assert "mutual TLS is STRICT" in unevaluated(*PODS, STRICT).reason


def test_a_sidecar_to_be_injected_counts_on_both_sides() -> None:
    labelled = namespace("ai", **{"istio-injection": "enabled"})
    pods = (
        labelled,
        namespace("b"),
        pod("ai/llama", "10.1.0.3"),
        pod("ai/rag", "10.1.0.4"),
        pod("b/plain", "10.1.0.5"),
    )
    judge = engine(*pods, STRICT)
    assert ask(judge, "ai/rag", "ai/llama", 80).verdict.value == "allow"
    assert ask(judge, "b/plain", "ai/llama", 80).verdict.value == "unknown"
