"""An example of each list in CONTRIBUTING.md, file by file: what a contributor writes by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """A text for a file: a new one, the end of one that is there, or the place `behind` a text of it."""

    file: str
    text: str
    behind: str = ""

    def apply(self, root: Path) -> None:
        path = root / self.file
        before = path.read_text() if path.exists() else ""
        head, behind, tail = before.partition(self.behind) if self.behind else (before, "", "")
        assert behind == self.behind, f"{self.file} has no {self.behind!r}"
        path.unlink(missing_ok=True)  # the copy's files are links to those of the tree
        path.write_text(f"{head}{behind}{self.text}{tail}")


PROBE = (
    Edit(
        "probes/example.bpf.c",
        """
/* Resets that sockets receive, by network namespace. */
struct example_key {
	__u32 netns;
};

BPF_HASH(resets, struct example_key, __u64, 1024);

int on_receive_reset(struct bpf_raw_tracepoint_args *ctx) /* tcp:tcp_receive_reset(sk) */
{
	struct example_key key = {.netns = socket_netns(ctx->args[0])};

	resets.increment(key);
	return 0;
}
""",
    ),
    Edit(
        "kubectl_genainet/agent/probes/example.py",
        '''"""The example probe (probes/example.bpf.c): how many resets sockets received."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.agent.probes.declare import (
    COMMON_VIEWS,
    SKB_HEAD,
    SKB_PLACE,
    Attachment,
    DecodeContext,
    Maps,
    Probe,
)
from kubectl_genainet.agent.probes.layout import layout
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import Event, ResetCount
from kubectl_genainet.model.packet import FiveTuple, Protocol

KEY = layout("example.bpf.c", "example_key")


def decode(_: bytes, context: DecodeContext) -> Event:
    raise GenainetError(f"node {context.node}: the example probe sends no events")


def drain(maps: Maps, context: DecodeContext, seen: dict[bytes, int], now: int) -> Iterator[ResetCount]:
    for key, value in maps.pairs("resets", KEY.size, 8):
        total = int.from_bytes(value, "little")
        if packets := total - seen.get(key, 0):
            flow = FiveTuple("", 0, "", 0, Protocol.TCP)
            netns = KEY.read(key).netns
            yield ResetCount(node=context.node, t_ns=now, netns=netns, flow=flow, packets=packets, sent=False)
        seen[key] = total


PROBE = Probe(
    name="example",
    source="example.bpf.c",
    views=(SKB_HEAD, SKB_PLACE, *COMMON_VIEWS),
    attachments=(Attachment("tcp", "tcp_receive_reset", "on_receive_reset"),),
    decode=decode,
    drain=drain,
)
''',
    ),
    Edit("kubectl_genainet/agent/probes/__init__.py", ", example", behind="import connections, dns, drops"),
    Edit("kubectl_genainet/agent/probes/__init__.py", ", example.PROBE", behind="dns.PROBE"),
    Edit(
        "tests/kernel/test_example_probe.py",
        '''"""The example probe on the running kernel: the resets that it counts are those that came."""

from __future__ import annotations

import socket

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.model.events import ResetCount
from tests.kernel.kerneltest import cache_folder


def test_each_refused_connection_is_a_reset_received() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with LoadedProbe(PROBES["example"], "node", cache_folder()) as probe:
        probe.configure([], None)
        probe.attach()
        for _ in range(7):
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", port)) != 0
        counted = list(probe.drain(1))
    assert sum(event.packets for event in counted if isinstance(event, ResetCount)) >= 7
''',
    ),
)

DIAGNOSIS = (
    Edit(
        "kubectl_genainet/trace/symptoms.py",
        '''

EXAMPLE = Diagnosis(
    Topic.CONNECTIONS,
    "example-diagnosis",
    Severity.INFO,
    "the client speaks SCTP",
    "It is an example.",
    "Do nothing.",
)


def example(protocol: Protocol) -> Finding | None:
    """The client speaks SCTP."""
    if protocol is not Protocol.SCTP:
        return None
    return EXAMPLE.finding("an example", (Evidence("the packets are SCTP's", Certainty.OBSERVED),))
''',
    ),
    Edit(
        "kubectl_genainet/trace/symptoms.py",
        "from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Topic\n",
        behind="    UNANSWERED,\n)\n",
    ),
    Edit("kubectl_genainet/trace/symptoms.py", ", Severity", behind="Certainty, Evidence, Finding, ObjectRef"),
    Edit(
        "tests/unit/trace/test_trace_example.py",
        '''"""The example diagnosis is reported of SCTP alone."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.trace.symptoms import example


@pytest.mark.parametrize(("protocol", "reported"), [(Protocol.SCTP, ["example-diagnosis"]), (Protocol.TCP, [])])
def test_the_protocol_of_the_example_is_reported(protocol: Protocol, reported: list[str]) -> None:
    finding = example(protocol)
    assert [finding.check for finding in [finding] if finding is not None] == reported
''',
    ),
)

REASON = (
    Edit(
        "kubectl_genainet/model/diagnoses/kernel.py",
        """
EXAMPLE = Diagnosis(
    Topic.KERNEL,
    "example-reason",
    Severity.ERROR,
    "the kernel freed an example",
    "It is an example.",
    "Do nothing.",
    _REASONS,
    sentences=(Sentence("{place} freed an example of {device}", "EXAMPLE_REASON"),),
)
""",
    ),
    Edit(
        "tests/unit/model/test_model_example.py",
        '''"""The example reason has its sentence."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses import BY_REASON


def test_the_reason_names_its_diagnosis() -> None:
    diagnosis, sentence = BY_REASON["EXAMPLE_REASON"]
    assert (diagnosis.name, sentence) == ("example-reason", "{place} freed an example of {device}")
''',
    ),
)

CHECK = (
    Edit(
        "kubectl_genainet/doctor/families/services/host_ports.py",
        '''

@check(Area.SERVICES, Severity.INFO, needs=("Service",))
def example_check(cluster: Cluster) -> Problems:
    """A Service is marked as an example.

    Looks at the annotation example.com/example of Services. Information: nothing fails.

    Why: it is an example.

    Source: https://example.com/
    """
    for service in cluster.services:
        if "example.com/example" in service.metadata.annotations:
            field = "metadata.annotations[example.com/example]"
            yield Problem("it is an example", service.ref, (seen(service.ref, field, "", "the annotation is there"),))
''',
    ),
    Edit(
        "tests/unit/doctor/faults/services.py",
        """

@fault("example-check", kubeadm, "Service chatbot/qdrant", "metadata.annotations[example.com/example]")
def service_marked_as_an_example(world: World) -> None:
    world.get("Service", "qdrant")["metadata"].setdefault("annotations", {})["example.com/example"] = ""
""",
    ),
    Edit(
        "docs/practice.md",
        "| Services | a Service is an example | `example-check` |\n",
        behind="| Services | ExternalName is DNS only | `external-name-address`, `external-name-port` |\n",
    ),
)

POLICY_KIND = (
    Edit(
        "kubectl_genainet/policy/left_out/other_kinds.py",
        '    ("example.com", "ExamplePolicy"): OtherKind("examplepolicies", _BEYOND),\n',
        behind="OTHER_KINDS: Mapping[tuple[str, str], OtherKind] = {\n",
    ),
    Edit(
        "tests/unit/policy/test_policy_example.py",
        '''"""A policy of the example kind makes UNKNOWN what it could change."""

from __future__ import annotations

import pytest

from tests.unit.policy.policy_cluster import Raw, engine, verdict
from tests.unit.policy.test_policy_networks_apart import PODS, other

EXAMPLE = other("example.com/v1", "ExamplePolicy", "ai/p")


@pytest.mark.parametrize(("policies", "expected"), [([], "allow"), ([EXAMPLE], "unknown")])
def test_a_flow_that_it_could_stop_is_unknown(policies: list[Raw], expected: str) -> None:
    assert verdict(engine(*PODS, *policies), "web/chat", "ai/llama") == expected
''',
    ),
)

INCIDENT = (
    Edit(
        "kubectl_genainet/lab/incidents/backends.py",
        '''

@incident(
    "example-incident",
    Expected(Verdict.FORWARDED),
    Cause("slow-backend", "answers slowly"),
    felt=Symptom.SLOW,
    clear=restore,
)
def example_incident(lab: Lab, memo: Memo) -> None:
    """One pod of the model is an example.

    Fault: one my-llama-finetuned pod waits 900 ms before each response.
    Diagnosis: as slow-backend.
    """
    _one_pod(lab, memo, {"delay_ms": 900})
''',
    ),
    Edit("docs/incidents/example-incident.md", "# example-incident\n\nThe transcript.\n"),
)

RENDERER = (
    Edit(
        "kubectl_genainet/render/drops/csv.py",
        '''"""Drops as comma-separated values."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.render.text import printable


def csv_lines(rows: Iterable[DropRow]) -> list[str]:
    return ["packets,check", *(f"{row.packets},{printable(row.check)}" for row in rows)]
''',
    ),
    Edit(
        "kubectl_genainet/render/drops/views.py",
        '''

class CsvView(DropsView):
    """A line for each row, at the end."""

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        print("\\n".join(csv_lines(rows)))
''',
        behind='print("\\n".join(markdown(drops_document(rows, summary))))\n',
    ),
    Edit("kubectl_genainet/render/drops/views.py", '    "csv": CsvView,\n', behind='    "markdown": MarkdownView,\n'),
    Edit(
        "kubectl_genainet/render/drops/views.py",
        "from kubectl_genainet.render.drops.csv import csv_lines\n",
        behind="from kubectl_genainet.render.document.markdown import markdown\n",
    ),
    Edit(
        "tests/unit/render/test_render_csv.py",
        '''"""Drops as comma-separated values, from a bundle."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus

BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "drops-policy-drop.gnb"


def test_a_bundles_drops_are_lines() -> None:
    result = CliRunner().invoke(cli, ["drops", "--from", str(BUNDLE), "-o", "csv"], standalone_mode=False)
    assert result.return_value is ExitStatus.FOUND
    assert result.stdout.startswith("packets,check\\n") and ",policy-drop\\n" in result.stdout
''',
    ),
)

EXAMPLES: dict[str, tuple[Edit, ...]] = {
    "probe": PROBE,
    "diagnosis": DIAGNOSIS,
    "kernel reason": REASON,
    "check": CHECK,
    "policy kind": POLICY_KIND,
    "incident": INCIDENT,
    "renderer": RENDERER,
}
