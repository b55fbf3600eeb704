"""What a cluster is made of, as its nodes and controllers tell: nodes, CNIs, distribution, cluster DNS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kubectl_genainet.doctor.objects import platform
from kubectl_genainet.doctor.objects.raw import moment, number
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, Service

ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True)
class Installed:
    """What the snapshot's nodes, controllers and configuration show to be installed."""

    snapshot: ClusterSnapshot

    @cached_property
    def cnis(self) -> tuple[platform.Cni, ...]:
        return platform.find_cnis(self.snapshot)

    @cached_property
    def cni_names(self) -> frozenset[str]:
        return frozenset(c.name.split(" (")[0] for c in self.cnis)

    def cni(self, name: str) -> platform.Cni | None:
        return next((c for c in self.cnis if c.name.startswith(name)), None)

    @cached_property
    def distribution(self) -> platform.Distribution:
        return platform.distribution(self.snapshot)[0]

    @cached_property
    def on_aws(self) -> bool:
        return platform.on_aws(self.snapshot)

    @cached_property
    def aws_installed(self) -> bool:
        return platform.aws_installed(self.snapshot)

    @cached_property
    def _controllers(self) -> tuple[KubeObject, ...]:
        return tuple(o for kind in ("Deployment", "DaemonSet", "StatefulSet") for o in self.snapshot.of(kind, "apps"))

    @cached_property
    def _controllers_by_mark(self) -> Mapping[str, int]:
        """By what they are known by, the positions of the first controllers: thousands run some dozens of images."""
        first: dict[str, int] = {}
        for position, obj in enumerate(self._controllers):
            for mark in platform.marks(obj):
                first.setdefault(mark, position)
        return first

    def running(self, *parts: str) -> KubeObject | None:
        """The Deployment, DaemonSet or StatefulSet whose name, labels or images contain one of the parts."""
        if parts not in self._running:
            having = (at for mark, at in self._controllers_by_mark.items() if any(part in mark for part in parts))
            position = min(having, default=None)
            self._running[parts] = None if position is None else self._controllers[position]
        return self._running[parts]

    @cached_property
    def _running(self) -> dict[tuple[str, ...], KubeObject | None]:
        """What `running` found, by the parts that it was asked for."""
        return {}

    def daemonset(self, *names: str) -> KubeObject | None:
        if names not in self._daemonsets:
            daemonsets = self.snapshot.of("DaemonSet", "apps")
            self._daemonsets[names] = next((o for o in daemonsets if o.name.startswith(names)), None)
        return self._daemonsets[names]

    @cached_property
    def _daemonsets(self) -> dict[tuple[str, ...], KubeObject | None]:
        """What `daemonset` found, by the names that it was asked for."""
        return {}

    @cached_property
    def coredns(self) -> KubeObject | None:
        """The Deployment behind cluster DNS: labelled k8s-app=kube-dns, or called coredns."""
        deployments = self.snapshot.of("Deployment", "apps")
        system = [o for o in deployments if o.namespace == "kube-system"]
        return next(
            (o for o in system if o.name in ("coredns", "kube-dns")),
            next((o for o in system if o.labels.get("k8s-app") == "kube-dns" and "autoscaler" not in o.name), None),
        )

    @cached_property
    def nodes(self) -> tuple[KubeObject, ...]:
        return self.snapshot.of("Node", "")

    @cached_property
    def _nodes_by_name(self) -> Mapping[str, KubeObject]:
        return {n.name: n for n in self.nodes}

    def node(self, name: str) -> KubeObject | None:
        return self._nodes_by_name.get(name)

    def zone(self, node_name: str) -> str:
        """The zone of a node; empty where its labels don't say."""
        node = self.node(node_name)
        return node.labels.get(ZONE, "") if node else ""

    @cached_property
    def cores(self) -> int:
        """Cores of all nodes, as the autoscaler counts them."""
        return math.ceil(sum(number(n.raw, "status", "capacity", "cpu") for n in self.nodes))

    @cached_property
    def now(self) -> float | None:
        """When the snapshot was taken, in seconds since the epoch; None if it does not say."""
        return moment(self.snapshot.taken_at)

    def age(self, timestamp: object) -> float | None:
        """Seconds from a timestamp to the snapshot; None where either is not known."""
        then = moment(timestamp)
        return None if then is None or self.now is None else self.now - then

    @cached_property
    def rdma(self) -> platform.RdmaResources:
        return platform.rdma_resources(self.snapshot)

    @cached_property
    def services_by_key(self) -> Mapping[tuple[str, str], Service]:
        return {(s.metadata.namespace, s.metadata.name): s for s in self.snapshot.services}

    @cached_property
    def dns_service(self) -> Service | None:
        return self.services_by_key.get(("kube-system", "kube-dns")) or self.services_by_key.get(
            ("kube-system", "coredns")
        )
