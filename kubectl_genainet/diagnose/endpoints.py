"""What stands behind the Services of a run, from the API's objects: a Service without a ready endpoint answers nobody, though
nobody was seen to try."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from kubectl_genainet.context.unread import unread
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Finding, ObjectRef, Severity
from kubectl_genainet.model.kube import Service
from kubectl_genainet.trace.symptoms import no_ready_endpoint


@dataclass(frozen=True, slots=True)
class Readiness:
    """A Service, and how many of its endpoints are ready; `leaving` are those that kube-proxy uses while none is."""

    service: Service
    ready: int
    all: int
    leaving: int

    def __str__(self) -> str:
        return f"{self.service.metadata.name}: {self.ready} of {self.all} ready"


def readiness_of(snapshot: ClusterSnapshot, services: Iterable[Service]) -> Iterator[Readiness]:
    """Of the Services that have endpoints of their own: an ExternalName is an alias."""
    for service in services:
        if service.spec.type == "ExternalName":
            continue
        backends = {(b.ip, b.port): b for port in service.spec.ports for b in snapshot.backends(service, port)}
        ready = sum(b.ready for b in backends.values())
        yield Readiness(service, ready, len(backends), sum(b.is_used_at_last for b in backends.values()))


def without_endpoints(
    snapshot: ClusterSnapshot, services: Iterable[Service], wanted: frozenset[ObjectRef]
) -> Iterator[Finding]:
    """Services whose endpoints were read, and none is ready. `wanted` are those that somebody calls, or asked about: of
    another it is no fault."""
    for found in readiness_of(snapshot, services):
        meta = found.service.metadata
        if found.ready or unread(snapshot, "EndpointSlice", meta.namespace):
            continue
        finding = no_ready_endpoint(meta.namespace, meta.name)
        if found.service.ref not in wanted:
            finding = msgspec.structs.replace(finding, severity=Severity.INFO)
        elif found.leaving:
            finding = msgspec.structs.replace(finding, severity=Severity.WARNING)
        yield finding
