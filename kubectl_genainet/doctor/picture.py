"""The cluster's picture: who calls whom, by which Service and port, and which checks fail where."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.model.finding import Certainty, Finding, ObjectRef, Severity
from kubectl_genainet.model.kube import Service

MAX_BOXES = 60


class BoxKind(Enum):
    ENTRY = "entry"  # how traffic comes in: load balancer, Ingress, route
    WORKLOAD = "workload"
    SERVICE = "service"
    EXTERNAL = "external"


class Box(msgspec.Struct, frozen=True):
    """Something in the picture. `failing` are the checks with a finding about it, worst first."""

    id: str
    kind: BoxKind
    title: str
    subtitle: str
    object: ObjectRef | None = None
    role: str = ""
    severity: Severity | None = None
    failing: tuple[str, ...] = ()


class Arrow(msgspec.Struct, frozen=True):
    """Who sends to whom. `certainty` is OBSERVED where packets were seen, ASSUMED where only configured."""

    source: str
    target: str
    label: str
    certainty: Certainty


class Picture(msgspec.Struct, frozen=True):
    """Boxes and arrows; `left_out` counts the boxes beyond the picture's limit."""

    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    left_out: int = 0


def box_id(ref: ObjectRef) -> str:
    return f"{ref.kind}/{ref.namespace}/{ref.name}"


class _Drawing:
    def __init__(self, cluster: Cluster, findings: Sequence[Finding]) -> None:
        self.cluster = cluster
        self.boxes: dict[str, Box] = {}
        self.arrows: dict[tuple[str, str], Arrow] = {}
        self.failing: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            about = {finding.object, *(e.object for e in finding.evidence)} - {None}
            for ref in about:
                if ref is not None:
                    self.failing[box_id(ref)].append(finding)

    def box(self, ref: ObjectRef, kind: BoxKind, subtitle: str, role: str = "") -> str:
        key = box_id(ref)
        findings = sorted(self.failing.get(key, ()), key=lambda f: -f.severity.rank)
        self.boxes.setdefault(
            key,
            Box(
                key,
                kind,
                ref.name,
                subtitle,
                ref,
                role,
                findings[0].severity if findings else None,
                tuple(dict.fromkeys(f.check for f in findings)),
            ),
        )
        return key

    def arrow(self, source: str, target: str, label: str, certainty: Certainty) -> None:
        known = self.arrows.get((source, target))
        if known is None or (known.certainty is Certainty.ASSUMED and certainty is not Certainty.ASSUMED):
            self.arrows[(source, target)] = Arrow(source, target, label, certainty)

    def service(self, service: Service) -> str:
        """A Service, with the workloads behind it."""
        new = box_id(service.ref) not in self.boxes
        key = self.box(service.ref, BoxKind.SERVICE, f"Service, {service.spec.type}")
        if new:
            for workload in self.cluster.workloads_of(service):
                ports = [
                    f"{p.port} → {self.cluster.target_port(workload, p) or p.target_port}" for p in service.spec.ports
                ]
                recognised = self.cluster.genai.get(workload.key)
                stack = (
                    f"{recognised.role.value}{', ' + recognised.stack if recognised.stack else ''}"
                    if recognised
                    else workload.ref.kind
                )
                target = self.box(workload.ref, BoxKind.WORKLOAD, stack, recognised.role.value if recognised else "")
                self.arrow(key, target, ", ".join(ports[:3]), Certainty.DERIVED)
        return key


def draw(cluster: Cluster, findings: Sequence[Finding]) -> Picture:
    """The GenAI workloads in scope, who calls them, whom they call, and how traffic comes in."""
    drawing = _Drawing(cluster, findings)
    for workload, recognised in cluster.genai_workloads:
        stack = f"{recognised.role.value}{', ' + recognised.stack if recognised.stack else ''}"
        drawing.box(workload.ref, BoxKind.WORKLOAD, stack, recognised.role.value)
        for service in cluster.services_of(workload):
            drawing.service(service)
    for call in cluster.genai_calls:
        source = box_id(call.client.ref)
        if call.service is not None:
            drawing.arrow(source, drawing.service(call.service), _port_text(call.port), Certainty.ASSUMED)
        else:
            target = drawing.box(ObjectRef("Host", call.host), BoxKind.EXTERNAL, "outside the cluster")
            drawing.arrow(source, target, _port_text(call.port), Certainty.ASSUMED)
    for entry, service_key, label in _entries(cluster):
        shown = cluster.services_by_key.get(service_key)
        if shown is not None and box_id(shown.ref) in drawing.boxes:
            source = drawing.box(entry, BoxKind.ENTRY, entry.kind)
            drawing.arrow(source, box_id(shown.ref), label, Certainty.DERIVED)
    for client, callee, label in _observed(cluster):
        if box_id(client) in drawing.boxes and box_id(callee) in drawing.boxes:
            drawing.arrow(box_id(client), box_id(callee), label, Certainty.OBSERVED)
    return _limited(drawing)


def _port_text(port: int | str) -> str:
    """A port as arrows have it; nothing where none is written and the Service has several."""
    return f"port {port}" if port else ""


def _limited(drawing: _Drawing) -> Picture:
    """The picture with at most MAX_BOXES boxes: those with findings and those with the most arrows stay."""
    degree = Counter(end for a in drawing.arrows.values() for end in (a.source, a.target))
    order = sorted(
        drawing.boxes.values(),
        key=lambda b: (-(b.severity.rank + 1 if b.severity else 0), b.role == Role.UNKNOWN.value, -degree[b.id], b.id),
    )
    kept = {b.id for b in order[:MAX_BOXES]}
    boxes = tuple(b for b in drawing.boxes.values() if b.id in kept)
    arrows = tuple(a for a in drawing.arrows.values() if a.source in kept and a.target in kept)
    return Picture(boxes, arrows, len(drawing.boxes) - len(boxes))


def _entries(cluster: Cluster) -> Iterable[tuple[ObjectRef, tuple[str, str], str]]:
    """Ingresses and routes: (entry, Service it leads to, label). A LoadBalancer is its Service's own box."""
    for ingress in cluster.snapshot.of("Ingress"):
        for rule in items(ingress.raw, "spec", "rules"):
            for path in items(rule, "http", "paths"):
                name = text(path, "backend", "service", "name")
                yield ingress.ref, (ingress.namespace, name), f"{text(rule, 'host')}{text(path, 'path')}"
    for route in (*cluster.snapshot.of("HTTPRoute"), *cluster.snapshot.of("GRPCRoute")):
        for rule in items(route.raw, "spec", "rules"):
            for backend in items(rule, "backendRefs"):
                namespace = text(backend, "namespace") or route.namespace
                yield route.ref, (namespace, text(backend, "name")), _port_text(text(backend, "port"))


def _observed(cluster: Cluster) -> Iterable[tuple[ObjectRef, ObjectRef, str]]:
    """Calls of which packets were recorded: (client workload, Service or workload, label)."""
    for packet in cluster.packets:
        flow = packet.flow
        client = cluster.snapshot.pod_at(flow.src)
        source = cluster.workload_of(client.ref) if client else None
        if source is None:
            continue
        service = cluster.snapshot.service_at(flow.dst, flow.dport, flow.protocol.name)
        if service is not None:
            yield source.ref, service.service.ref, f"port {flow.dport}"
