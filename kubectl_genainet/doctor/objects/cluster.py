"""The cluster as the checks see it: objects, node knowledge, and the look-ups that many checks share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kubectl_genainet.doctor.by_label import WorkloadsByLabel
from kubectl_genainet.doctor.check import Need
from kubectl_genainet.doctor.inputs import NO_FABRIC, NOTHING_MEASURED, DnsMeasurement, DnsStats, FabricMeasurement
from kubectl_genainet.doctor.nodes_rules import NodesRules
from kubectl_genainet.doctor.objects.callers import passing_tokens, with_callers
from kubectl_genainet.doctor.objects.calls import ENTRIES, Call, find_calls, services_behind
from kubectl_genainet.doctor.objects.extent import Extent
from kubectl_genainet.doctor.objects.installed import Installed
from kubectl_genainet.doctor.objects.made_services import made_services, of_its_owner
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import text
from kubectl_genainet.doctor.objects.recognise import Override, Recognised, recognise_all
from kubectl_genainet.doctor.objects.stacks import Role, Stack, stack_named
from kubectl_genainet.doctor.objects.variables import Variable, Variables
from kubectl_genainet.doctor.objects.workloads import LivePod, Workload, WorkloadKey, fold
from kubectl_genainet.model.events import PacketSighting
from kubectl_genainet.model.finding import Finding, ObjectRef
from kubectl_genainet.model.kube import KubeObject, Service, ServicePort
from kubectl_genainet.model.node import NodeReport
from kubectl_genainet.model.workload_kinds.accelerators import gpus_of
from kubectl_genainet.model.workload_kinds.kinds import TEMPLATE_PLACES
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import (
    DirectionResult,
    Explanation,
    PolicyFlow,
    domain_endpoint,
    ip_endpoint,
    pod_endpoint,
)

INSTANCE_TYPE = "node.kubernetes.io/instance-type"


@dataclass(frozen=True)
class Cluster(Installed):
    """All that a check may look at. `namespace` limits whose workloads and Services are judged; empty: all.

    `complete`: the user says that manifests are the whole cluster.
    """

    reports: tuple[NodeReport, ...] = ()
    rules: NodesRules = field(default_factory=NodesRules)
    packets: tuple[PacketSighting, ...] = ()
    measured: DnsMeasurement = NOTHING_MEASURED
    fabric: FabricMeasurement = NO_FABRIC
    namespace: str = ""
    overrides: tuple[Override, ...] = ()
    complete: bool = False

    # What is known and what is not

    @cached_property
    def extent(self) -> Extent:
        return Extent(self.snapshot, self.complete)

    @property
    def from_files(self) -> bool:
        return self.extent.from_files

    def lives(self, uid: str) -> bool:
        """Whether an object is one of a cluster: read from one, or in a dump with the uid that its API server gave it."""
        return not self.from_files or bool(uid)

    def partial(self, kind: str, namespace: str = "") -> str:
        """Why an object of a kind that is not here may exist all the same; empty where it does not exist."""
        return self.extent.partial(kind, namespace)

    def missing(self, need: str | Need, *, own_namespace: bool = False) -> str:
        """Why something that a check needs is not known; empty where it is.

        `own_namespace`: the objects of the namespace that is judged are enough.
        """
        if need is Need.DNS:
            return self._dns_missing
        if need is Need.FABRIC:
            return "" if self.fabric.summary is not None else self.fabric.absent or Need.FABRIC.value
        if isinstance(need, Need):
            known = {Need.NODES: self.reports, Need.RULESETS: self.rules.dumps, Need.PACKETS: self.packets}[need]
            return "" if known else need.value
        reason = self.extent.unread(need, self.namespace if own_namespace else "")
        if reason:
            return f"{need} could not be read: {reason}"
        if need == "EndpointSlice" and self.extent.endpoints_by_hand:
            return "the manifests hold no EndpointSlice that a cluster made"
        if self.from_files and not self.snapshot.of(need) and not (need == "Pod" and self.workloads):
            return self.partial(need)
        return ""

    @cached_property
    def dns(self) -> tuple[DnsStats, ...]:
        """Measured DNS of the client workloads in scope."""
        return tuple(s for s in self.measured.clients if self.in_scope(s.client.partition("/")[0]))

    @property
    def _dns_missing(self) -> str:
        if self.dns:
            return ""
        if self.measured.clients:
            return f"no DNS query of a pod in namespace {self.namespace} was measured"
        return self.measured.absent or Need.DNS.value

    def unread(self, kind: str) -> str:
        """Why a kind that a cluster need not have was not read; empty where it was, or where there is none."""
        return self.extent.unread(kind)

    def in_scope(self, namespace: str) -> bool:
        return self.namespace in ("", namespace)

    # Workloads

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        return fold(self.snapshot)

    @cached_property
    def workloads_in(self) -> Mapping[str, tuple[Workload, ...]]:
        """Workloads by namespace."""
        index: dict[str, list[Workload]] = defaultdict(list)
        for workload in self.workloads:
            index[workload.namespace].append(workload)
        return {namespace: tuple(workloads) for namespace, workloads in index.items()}

    def workloads_with(self, key: str) -> tuple[Workload, ...]:
        """The workloads whose template has a field of a pod's spec ("volumes", "resourceClaims")."""
        if key not in self._with_field:
            self._with_field[key] = tuple(w for w in self.workloads if w.template.spec.get(key))
        return self._with_field[key]

    @cached_property
    def _with_field(self) -> dict[str, tuple[Workload, ...]]:
        return {}

    @cached_property
    def _recognised(self) -> Mapping[WorkloadKey, Recognised]:
        """What images, arguments, devices and labels tell, or --workload; without the callers."""
        return recognise_all(self.workloads, self.overrides)

    @cached_property
    def genai(self) -> Mapping[WorkloadKey, Recognised]:
        """GenAI workloads of the whole cluster: those recognised, and the applications that call them."""
        if self.overrides:
            return self._recognised
        return with_callers(self._recognised, self.calls, self.workloads_of)

    @cached_property
    def genai_workloads(self) -> tuple[tuple[Workload, Recognised], ...]:
        """The GenAI workloads in scope."""
        return tuple(
            (w, self.genai[w.key]) for w in self.workloads if w.key in self.genai and self.in_scope(w.namespace)
        )

    @cached_property
    def model_servers(self) -> tuple[tuple[Workload, Recognised], ...]:
        return tuple((w, r) for w, r in self.genai_workloads if r.role is Role.MODEL_SERVER)

    def role(self, workload: Workload) -> Role:
        recognised = self.genai.get(workload.key)
        return recognised.role if recognised else Role.UNKNOWN

    def stack(self, workload: Workload) -> Stack | None:
        recognised = self.genai.get(workload.key)
        return stack_named(recognised.stack) if recognised else None

    @cached_property
    def _by_ref(self) -> Mapping[ObjectRef, Workload]:
        return {w.ref: w for w in reversed(self.workloads)}

    @cached_property
    def _objects(self) -> Mapping[tuple[str, str, str, str], KubeObject]:
        return {
            (group, kind, o.namespace, o.name): o
            for group, kind in TEMPLATE_PLACES
            for o in self.snapshot.of(kind, group)
        }

    def object_of(self, workload: Workload) -> KubeObject | None:
        """The object that a workload is (a part) of; None for pods, and where it was not read."""
        ref = workload.ref
        return self._objects.get((workload.group, ref.kind, ref.namespace, ref.name))

    def workload(self, ref: ObjectRef) -> Workload | None:
        """The (first) workload of an object."""
        return self._by_ref.get(ref)

    @cached_property
    def _workload_of_pod(self) -> Mapping[ObjectRef, Workload]:
        return {p.ref: w for w in self.workloads for p in w.pods}

    def workload_of(self, pod: ObjectRef) -> Workload | None:
        return self._workload_of_pod.get(pod)

    @cached_property
    def live_pods(self) -> tuple[LivePod, ...]:
        """Pods in scope that are not finished."""
        return tuple(p for w in self.workloads for p in w.pods if self.in_scope(w.namespace))

    @cached_property
    def has_gpu_pods(self) -> bool:
        return any(gpus_of(live.obj.raw) for live in self.live_pods)

    # Services and calls

    @cached_property
    def services(self) -> tuple[Service, ...]:
        """The Services in scope."""
        return tuple(s for s in self.snapshot.services if self.in_scope(s.metadata.namespace))

    @cached_property
    def _all_services(self) -> Mapping[tuple[str, str], Service]:
        return {**made_services(self.snapshot, self.extent.varies), **self.services_by_key}

    def service(self, namespace: str, name: str) -> Service | None:
        """A Service that is here, or that the operator of an object here makes."""
        return self._all_services.get((namespace, name))

    @cached_property
    def _by_label(self) -> WorkloadsByLabel:
        return WorkloadsByLabel(self.workloads_in)

    def selected(self, namespace: str, selector: Mapping[str, str]) -> tuple[Workload, ...]:
        """The workloads of which a pod, or else the template, has all labels of a Service's selector; none for an empty one."""
        return self._by_label.selected(namespace, selector)

    def templates_matching(self, namespace: str, selector: Mapping[str, Any]) -> list[Workload]:
        """The workloads whose template a LabelSelector matches, a policy's for one."""
        return self._by_label.templates_matching(namespace, selector)

    def workloads_of(self, service: Service) -> tuple[Workload, ...]:
        """The workloads behind a Service."""
        selected = self.selected(service.metadata.namespace, service.spec.selector)
        written = (service.metadata.namespace, service.metadata.name) in self.services_by_key
        return self.extent.beside(service.ref, selected) if written else of_its_owner(service, selected)

    @cached_property
    def _services_of(self) -> Mapping[WorkloadKey, tuple[Service, ...]]:
        index: dict[WorkloadKey, list[Service]] = defaultdict(list)
        for service in self.snapshot.services:
            for workload in self.workloads_of(service):
                index[workload.key].append(service)
        return {ref: tuple(services) for ref, services in index.items()}

    def services_of(self, workload: Workload) -> tuple[Service, ...]:
        return self._services_of.get(workload.key, ())

    def serves_models(self, service: Service | None) -> bool:
        """Whether a recognised model server is behind a Service, or an application that passes its tokens on."""
        behind = self.workloads_of(service) if service is not None else ()
        return any(self.role(w) is Role.MODEL_SERVER for w in behind) or self.streams(service)

    def streams(self, service: Service | None) -> bool:
        """Whether tokens come from behind a Service one by one."""
        return service is not None and any(w.key in self._passing_tokens for w in self.workloads_of(service))

    def passes_tokens(self, workload: Workload) -> bool:
        """Whether tokens come from a workload one by one."""
        return workload.key in self._passing_tokens

    @cached_property
    def _passing_tokens(self) -> frozenset[WorkloadKey]:
        return passing_tokens(self.genai, self.workloads, self.calls, self.workloads_of, self._programs_of)

    @cached_property
    def _passing_for_sure(self) -> frozenset[WorkloadKey]:
        about = (self.genai, self.workloads, self.calls, self.workloads_of, self._programs_of)
        return passing_tokens(*about, for_sure=True)

    def waits_for_a_model(self, service: Service) -> bool:
        """Whether answers from behind a Service wait for a model that is served here, as far as can be seen."""
        return any(w.key in self._passing_for_sure for w in self.workloads_of(service))

    def _programs_of(self, workload: Workload) -> str | None:
        """What a RayService says of its applications; None for an object that is given in several ways."""
        obj = self.object_of(workload)
        told = text(obj.raw, "spec", "serveConfigV2") if obj is not None else ""
        return None if self.extent.varies(workload.ref) else told

    @cached_property
    def ingress_backends(self) -> frozenset[tuple[str, str]]:
        """(namespace, name) of the Services that an Ingress, or what F5's NGINX has in its place, leads to."""
        entries = (entry for kind, group in ENTRIES for entry in self.snapshot.of(kind, group))
        return frozenset(behind for entry in entries for behind in services_behind(entry))

    @cached_property
    def config_maps(self) -> Mapping[tuple[str, str], KubeObject]:
        return {(o.namespace, o.name): o for o in self.snapshot.of("ConfigMap", "")}

    @cached_property
    def _variables(self) -> Variables:
        return Variables(self.workloads_in, self.config_maps)

    def variables(self, workload: Workload, container: ContainerSpec) -> Mapping[str, Variable]:
        """The variables that a container runs with."""
        return self._variables.of(workload, container)

    @cached_property
    def _namespaces(self) -> frozenset[str]:
        return frozenset(self.snapshot.namespaces) | {namespace for namespace, _ in self.services_by_key}

    @cached_property
    def _configured(self) -> tuple[Call, ...]:
        where = (self._all_services, self._namespaces, self.config_maps)
        return tuple(call for w in self.workloads for call in find_calls(w, *where))

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Every configured call of the cluster, those apart that lead nowhere."""
        return tuple(call for call in self._configured if not call.dangling)

    @cached_property
    def dangling_calls(self) -> tuple[Call, ...]:
        """The configured calls of names of the cluster for which there is no Service."""
        return tuple(call for call in self._configured if call.dangling)

    @cached_property
    def calls_to(self) -> Mapping[ObjectRef, tuple[Call, ...]]:
        """The configured calls of each Service."""
        index: dict[ObjectRef, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.service is not None:
                index[call.service.ref].append(call)
        return {ref: tuple(calls) for ref, calls in index.items()}

    @cached_property
    def genai_calls(self) -> tuple[Call, ...]:
        """The calls that GenAI workloads in scope make."""
        return tuple(c for c in self.calls if c.client.key in self.genai and self.in_scope(c.client.namespace))

    def target_port(self, workload: Workload, port: ServicePort) -> int:
        """The pod's port behind a Service port; 0 where it is named and the template declares no such name."""
        return workload.template.port_number(port.target_port or port.port)

    # Nodes

    @cached_property
    def pods_per_node(self) -> Mapping[str, tuple[LivePod, ...]]:
        index: dict[str, list[LivePod]] = defaultdict(list)
        for workload in self.workloads:
            for pod in workload.pods:
                if pod.node:
                    index[pod.node].append(pod)
        return {name: tuple(pods) for name, pods in index.items()}

    # Policies

    @cached_property
    def policy(self) -> PolicyEngine:
        """The policy engine over the whole cluster. Raises InputError for a policy that is not valid."""
        return PolicyEngine(self.snapshot)

    def admits(self, source: Workload, destination: Workload, protocol: str, port: int) -> Explanation | None:
        """The verdict on a connection between a pod of each; None where one has no pod, or both are the same pod.

        Pods of a workload have the same labels, so one stands for all.
        """
        client = next((p for p in source.pods if not p.terminating), None)
        server = next(
            (p for p in destination.pods if not p.terminating and (client is None or p.ref != client.ref)), None
        )
        if client is None or server is None:
            return None
        ends = pod_endpoint(client.ref.namespace, client.ref.name), pod_endpoint(server.ref.namespace, server.ref.name)
        return self.policy.explain(PolicyFlow(*ends, protocol, port))

    def egress_to(
        self, source: Workload, ip: str, protocol: str, port: int, domain: str = ""
    ) -> DirectionResult | None:
        """The egress verdict of a workload's pods to an address (or a domain); None where it has no pod."""
        client = next((p for p in source.pods if not p.terminating), None)
        if client is None:
            return None
        end = domain_endpoint(domain, ip) if domain else ip_endpoint(ip)
        return self.policy.explain(
            PolicyFlow(pod_endpoint(client.ref.namespace, client.ref.name), end, protocol, port)
        ).egress

    @property
    def drift(self) -> tuple[Finding, ...]:
        """What the rules engine says of the nodes' rules against the API."""
        return self.rules.drift(self.snapshot)

    # Events

    @cached_property
    def event_objects(self) -> tuple[KubeObject, ...]:
        """Events (core/v1 or events.k8s.io/v1) about objects in scope."""
        return tuple(e for e in self.snapshot.of("Event") if self.in_scope(e.namespace) or e.namespace == "default")

    def events(self, *reasons: str) -> tuple[KubeObject, ...]:
        return tuple(e for e in self.event_objects if text(e.raw, "reason") in reasons)
