"""The callers' lookups are followed beside a Service's connections, and told only where they are lost."""

from __future__ import annotations

from kubectl_genainet.context.targets import Resolved
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.path import Flow, PacketPath, Party, ServiceRef, Verdict
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.run.lookups import is_lost_lookup

DNS, VIP = "10.96.0.10", "10.96.7.7"
RESOLVED = Resolved(
    parse_target("svc/vllm"),
    "ai",
    (),
    frozenset({(VIP, 80), ("10.244.2.2", 8000), (DNS, 53)}),
    frozenset(),
    lookups=frozenset({DNS, "10.244.9.9"}),
)


def path(service: ServiceRef, backend: str, port: int, verdict: Verdict = Verdict.FORWARDED) -> PacketPath:
    client = Party("10.244.1.5", 40000, "ai", "chat-1", "node-1", "chat")
    return PacketPath(
        flow=Flow(client, service, Protocol.UDP), backend=Party(backend, port), nat=None, hops=(), verdict=verdict
    )


def test_lookups_that_arrive_are_not_of_the_target() -> None:
    dns, own = ServiceRef("kube-system", "kube-dns", 53, "dns", DNS), ServiceRef("ai", "vllm", 80, "http", VIP)
    for verdict, lost in ((Verdict.FORWARDED, False), (Verdict.DROPPED, True), (Verdict.REJECTED, True)):
        lookup = path(dns, "10.244.9.9", 53, verdict)
        assert not RESOLVED.concerns(lookup) and is_lost_lookup(lookup, RESOLVED) is lost
    assert RESOLVED.concerns(path(own, "10.244.2.2", 8000))
    assert not is_lost_lookup(path(own, "10.244.2.2", 8000, Verdict.DROPPED), RESOLVED)


def test_connections_of_other_services_in_a_bundle_are_not_of_the_target() -> None:
    other = ServiceRef("ai", "qdrant", 6333, "http", "10.96.8.8")
    assert not RESOLVED.concerns(path(other, "10.244.3.3", 6333))
