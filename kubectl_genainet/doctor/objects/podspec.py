"""Pod templates, as far as the checks read them, from a pod or from the controller that makes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from kubectl_genainet.doctor.objects.raw import at, items, mapping, number, text
from kubectl_genainet.model.units import quantity, whole_number
from kubectl_genainet.model.workload_kinds.accelerators import GPU_RESOURCES

NEURON_RESOURCES = ("aws.amazon.com/neuron",)
OTHER_ACCELERATORS = ("google.com/tpu", "habana.ai/gaudi", "huawei.com/Ascend", "rebellions.ai/", "furiosa.ai/")
EFA_RESOURCE = "vpc.amazonaws.com/efa"


class ContainerProbe(msgspec.Struct, frozen=True):
    """A container probe with the API's defaults. `handler` is httpGet, tcpSocket, grpc, exec or empty."""

    handler: str
    path: str
    port: int | str
    initial_delay: int
    period: int
    failures: int
    raw: dict[str, Any] = {}

    @property
    def budget(self) -> int:
        """Seconds that a container may fail the probe before the kubelet acts on it."""
        return self.initial_delay + self.period * self.failures


def _holds(value: str, port: int) -> bool:
    return re.search(rf"(?<![0-9.]){port}(?![0-9])", value) is not None


@dataclass(frozen=True)
class ContainerSpec:
    """One container of a template. `index` and `list_name` give its field path. What is read often is read once."""

    raw: dict[str, Any]
    index: int
    list_name: str = "containers"

    @property
    def name(self) -> str:
        return text(self.raw, "name")

    @cached_property
    def image(self) -> str:
        return text(self.raw, "image")

    @cached_property
    def words(self) -> list[str]:
        """Command and arguments."""
        return [str(w) for key in ("command", "args") for w in at(self.raw, key) or ()]

    def option(self, *names: str) -> str:
        """The value of a command line option (--name VALUE, --name=VALUE), wherever it stands; empty where none is given."""
        tokens = [w for word in self.words for w in word.split()]
        for index, word in enumerate(tokens):
            if word in names and index + 1 < len(tokens):
                return tokens[index + 1].strip("'\"")
            if word.partition("=")[0] in names and "=" in word:
                return word.partition("=")[2].strip("'\"")
        return ""

    @cached_property
    def env(self) -> dict[str, str]:
        """Variables with a literal value."""
        return {text(e, "name"): text(e, "value") for e in items(self.raw, "env") if "value" in e}

    @cached_property
    def env_names(self) -> frozenset[str]:
        """The variables that the container sets, also those whose value is elsewhere."""
        return frozenset(text(e, "name") for e in items(self.raw, "env"))

    def env_field(self, name: str) -> str:
        """The field path of a variable, below the pod spec."""
        for index, entry in enumerate(items(self.raw, "env")):
            if entry.get("name") == name:
                return f"{self.field}.env[{index}].value"
        return f"{self.field}.env"

    @property
    def field(self) -> str:
        return f"{self.list_name}[{self.index}]"

    @cached_property
    def requests(self) -> dict[str, Any]:
        """Requests, with limits where no request is given (the API's defaulting)."""
        return {**mapping(self.raw, "resources", "limits"), **mapping(self.raw, "resources", "requests")}

    def amount(self, *prefixes: str) -> float:
        return sum(quantity(v) for k, v in self.requests.items() if k.startswith(prefixes))

    @cached_property
    def accelerators(self) -> float:
        """How many GPUs, Neuron devices, Gaudi cards and the like it asks for."""
        return self.amount(*GPU_RESOURCES, *NEURON_RESOURCES, *OTHER_ACCELERATORS)

    @cached_property
    def ports(self) -> list[tuple[int, str, str]]:
        """Declared ports as (number, name, protocol)."""
        return [
            (number(p, "containerPort"), text(p, "name"), text(p, "protocol") or "TCP")
            for p in items(self.raw, "ports")
        ]

    def mentions(self, port: int) -> bool:
        """Whether a port's number stands in the command line, a variable or a probe."""
        probes = [at(self.raw, kind) for kind in ("readinessProbe", "livenessProbe", "startupProbe")]
        return self.is_told(port) or any(_holds(str(p), port) for p in probes if p)

    def is_told(self, port: int) -> bool:
        """Whether a port's number stands in the command line or a variable."""
        return any(_holds(value, port) for value in (*self.words, *self.env.values()))

    def probe(self, kind: str) -> ContainerProbe | None:
        """readinessProbe, livenessProbe or startupProbe."""
        raw = at(self.raw, kind)
        if not isinstance(raw, dict):
            return None
        handler = next((h for h in ("httpGet", "tcpSocket", "grpc", "exec") if h in raw), "")
        port = at(raw, handler, "port") if handler else 0
        return ContainerProbe(
            handler=handler,
            path=text(raw, handler, "path") if handler == "httpGet" else "",
            port=port if isinstance(port, int | str) else 0,
            initial_delay=number(raw, "initialDelaySeconds"),
            period=number(raw, "periodSeconds", default=10),
            failures=number(raw, "failureThreshold", default=3),
            raw=raw,
        )


@dataclass(frozen=True)
class Template:
    """A pod template: metadata and spec. What is read from them often is read once."""

    metadata: dict[str, Any]
    spec: dict[str, Any]

    @cached_property
    def labels(self) -> dict[str, str]:
        return {k: str(v) for k, v in mapping(self.metadata, "labels").items()}

    @cached_property
    def annotations(self) -> dict[str, str]:
        return {k: str(v) for k, v in mapping(self.metadata, "annotations").items()}

    @cached_property
    def containers(self) -> list[ContainerSpec]:
        return [ContainerSpec(c, i) for i, c in enumerate(items(self.spec, "containers"))]

    @cached_property
    def init_containers(self) -> list[ContainerSpec]:
        return [ContainerSpec(c, i, "initContainers") for i, c in enumerate(items(self.spec, "initContainers"))]

    @cached_property
    def all_containers(self) -> list[ContainerSpec]:
        return [*self.containers, *self.init_containers]

    @cached_property
    def host_network(self) -> bool:
        return at(self.spec, "hostNetwork") is True

    @cached_property
    def gpus(self) -> float:
        return sum(c.amount(*GPU_RESOURCES) for c in self.containers)

    @cached_property
    def neurons(self) -> float:
        return sum(c.amount(*NEURON_RESOURCES) for c in self.containers)

    @cached_property
    def efas(self) -> float:
        return sum(c.amount(EFA_RESOURCE) for c in self.containers)

    @cached_property
    def accelerated(self) -> bool:
        return any(c.accelerators for c in self.containers)

    def ports_beside(self, container: ContainerSpec) -> set[int]:
        """Ports that other containers of the pod declare."""
        return {n for c in self.all_containers if c.name != container.name for n, _, _ in c.ports}

    def port_number(self, port: int | str) -> int:
        """A probe's or Service's port as a number; 0 where no container declares the name."""
        number = port if isinstance(port, int) else whole_number(str(port))
        if number is not None:
            return number
        return next((n for c in self.all_containers for n, name, _ in c.ports if name == port), 0)
