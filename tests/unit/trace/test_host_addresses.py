"""Whose an address is that nodes report as their own: nobody's, as long as several have it."""

from __future__ import annotations

import time

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.node import Device, NetNs, NodeReport


def report(node: str, *addresses: str) -> NodeReport:
    device = Device(name="eth0", ifindex=2, mtu=1500, addresses=addresses)
    return NodeReport(node=node, t_ns=1, namespaces=(NetNs(inode=1, host=True, devices=(device,)),))


def test_an_address_that_several_nodes_have_is_no_nodes_until_one_alone_has_it() -> None:
    identity = Identity(ClusterSnapshot())
    identity.learn(report("a", "172.20.0.1", "169.254.20.10"))
    identity.learn(report("b", "172.20.0.2", "169.254.20.10"))

    def nodes() -> list[str | None]:
        return [identity.party(ip, 0).node for ip in ("172.20.0.1", "172.20.0.2", "169.254.20.10", "10.0.0.1")]

    assert nodes() == ["a", "b", None, None]
    identity.learn(report("b", "172.20.0.2"))
    assert nodes() == ["a", "b", "a", None]
    identity.learn(report("a", "172.20.0.2"))
    assert nodes() == [None, None, None, None]


def test_many_nodes_are_learnt_in_a_time_that_grows_as_their_number() -> None:
    def took(count: int) -> float:
        identity = Identity(ClusterSnapshot())
        reports = [report(f"node-{n}", f"172.20.{n >> 8}.{n & 255}") for n in range(count)]
        began = time.thread_time()
        for each in reports:
            identity.learn(each)
        return time.thread_time() - began

    few = min(took(300) for _ in range(5))
    assert min(took(3000) for _ in range(3)) < 40 * few  # each learnt by looking at all others: 100 times
