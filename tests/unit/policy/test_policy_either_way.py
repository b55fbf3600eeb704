"""A policy that may not be in force is judged both ways: the verdict is UNKNOWN only where these differ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_genainet.policy import Direction, PolicyFlow, PolicyVerdict
from kubectl_genainet.policy.model import Reason
from tests.unit.policy.policy_cluster import Raw, admin, ask, daemon_set, end, engine, labels, namespace, netpol, pod
from tests.unit.policy.test_policy_properties import choice, clusters, flows, spec

PODS = (namespace("ai"), namespace("web"), pod("ai/llama", "10.1.0.1"), pod("web/chat", "10.2.0.1"))


def old(name: str, **of_policy: object) -> Raw:
    """A NetworkPolicy of an API version that servers no longer have."""
    return {**netpol(name, **of_policy), "apiVersion": "extensions/v1beta1"}


def cases(objects: list[Raw]) -> Iterator[list[Raw]]:
    """The objects as they are where each old policy is in force, or is not."""
    doubtful = [o for o in objects if o["apiVersion"] == "extensions/v1beta1"]
    for in_force in product((True, False), repeat=len(doubtful)):
        gone = [o for o, stays in zip(doubtful, in_force, strict=True) if not stays]
        yield [
            {**o, "apiVersion": "networking.k8s.io/v1"} if o["kind"] == "NetworkPolicy" else o
            for o in objects
            if all(o is not other for other in gone)
        ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters(policies=2), st.lists(st.tuples(choice("a", "b"), spec), min_size=1, max_size=3))
def test_it_is_unknown_exactly_where_the_cases_differ(objects: list[Raw], doubtful: list[tuple[str, Raw]]) -> None:
    objects = [*objects, *(old(f"{where}/old{i}", **found) for i, (where, found) in enumerate(doubtful))]
    judge, possible = engine(*objects), [engine(*case) for case in cases(objects)]
    for source, target, protocol, number in flows(objects):
        flow = PolicyFlow(end(source), end(target), protocol, number)
        answer = judge.explain(flow)
        assert judge.verdict(flow) is answer.verdict
        for direction in Direction:
            verdicts = {case.explain(flow).direction(direction).verdict for case in possible}
            expected = verdicts.pop() if len(verdicts) == 1 else PolicyVerdict.UNKNOWN
            assert answer.direction(direction).verdict is expected, (flow, direction)


def test_an_old_policy_that_admits_all_changes_nothing() -> None:
    answer = ask(engine(*PODS, old("ai/p", ingress=[{}])), "web/chat", "ai/llama")
    assert (answer.verdict, answer.ingress.reason) == (PolicyVerdict.ALLOW, Reason.EITHER_WAY)
    assert "extensions/v1beta1" in answer.not_evaluated[0].reason


def test_what_only_one_of_two_old_policies_admits_hangs_on_them() -> None:
    """One may have been stored by a server that had the version, and the other come later."""
    closed = engine(*PODS, old("ai/deny"), old("ai/admit", ingress=[{}]))
    assert ask(closed, "web/chat", "ai/llama").verdict is PolicyVerdict.UNKNOWN


_ALL: Raw = {"subject": {"namespaces": {}}}
_WEB: Raw = {"namespaces": labels(**{"kubernetes.io/metadata.name": "web"})}


@pytest.mark.parametrize(("denied", "expected"), [(80, PolicyVerdict.UNKNOWN), (81, PolicyVerdict.ALLOW)])
def test_kinds_that_an_enforcer_may_not_read_are_read_together_or_not_at_all(
    denied: int, expected: PolicyVerdict
) -> None:
    """Calico without a version: of two policies of a kind, one is not in force without the other."""
    port = {"ports": [{"portNumber": {"protocol": "TCP", "port": denied}}]}
    first = admin("AdminNetworkPolicy", "b", priority=1, **_ALL, ingress=[{"action": "Deny", "from": [_WEB], **port}])
    admit = admin("AdminNetworkPolicy", "c", priority=2, **_ALL, ingress=[{"action": "Allow", "from": [_WEB]}])
    deny = admin("AdminNetworkPolicy", "d", priority=3, **_ALL, ingress=[{"action": "Deny", "from": [_WEB]}])
    calico = daemon_set("docker.io/calico/node", "calico-node")
    assert ask(engine(*PODS, calico, first, admit, deny), "web/chat", "ai/llama").verdict is expected
