"""The programs of docs/library.md run as they stand there, and the functions answer what the commands answer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

import kubectl_genainet
from kubectl_genainet import api
from kubectl_genainet.api import BundleSource, InputError, LabSource, past, timeline
from kubectl_genainet.assets import recordings
from kubectl_genainet.cli import cli
from tests.unit.timeline.recorded import two_incidents, write

DOCS = Path(__file__).parents[3] / "docs" / "library.md"
REPLAY, JUDGE, PAST = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
INCIDENT = recordings() / "policy-service-port.gnb"


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_program_that_replays_a_bundle_prints_the_first_dropped_path(tmp_path: Path) -> None:
    shutil.copy(INCIDENT, tmp_path / "incident.gnb")
    done = run(REPLAY, tmp_path)
    assert done.returncode == 0 and not done.stderr
    first, *evidence = done.stdout.splitlines()
    assert re.fullmatch(r"chatbot-ui-\S+ → my-llama-finetuned-\S+: .* by default/my-llama-ingress-policy, .*", first)
    assert evidence[0].startswith("  NETFILTER_DROP in ") and evidence[0].endswith("[observed]")
    assert len(REPLAY.splitlines()) <= 10


def test_the_program_that_judges_manifests_fails_where_a_flow_is_not_admitted(tmp_path: Path) -> None:
    manifests = Path(kubectl_genainet.__file__).parent / "lab" / "manifests" / "app"
    shutil.copytree(manifests, tmp_path / "deploy")
    done = run(JUDGE, tmp_path)
    assert done.returncode == 0 and not done.stderr
    assert re.search(r"chatbot-ui\S* → \S*my-llama\S* TCP 8080 allow", done.stdout)
    isolate = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "nobody"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    }
    (tmp_path / "deploy" / "nobody.json").write_text(json.dumps(isolate))
    assert run(JUDGE, tmp_path).returncode == 1


def test_trace_returns_what_the_command_prints() -> None:
    source = api.BundleSource(INCIDENT)
    result = api.trace(source, "svc/my-llama-svc")
    done = CliRunner().invoke(cli, ["trace", "svc/my-llama-svc", "--from", str(INCIDENT), "-o", "json"])
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [p["verdict"] for p in printed if p["kind"] == "path"] == [p.verdict.value for p in result.paths]
    assert result.found and result.summary.connections == len(result.paths) > 0


def test_replay_finds_the_verb_and_the_target_in_the_bundle() -> None:
    replayed, traced = api.replay(INCIDENT), api.trace(api.BundleSource(INCIDENT), "svc/my-llama-svc")
    assert replayed == traced


def test_rules_of_a_bundle_are_those_that_were_recorded() -> None:
    result = api.rules(api.BundleSource(recordings() / "healthy.gnb"), "svc/my-llama-svc")
    assert {row.node for row in result.report.rows} == {"node-1", "node-2", "node-3"}
    assert not result.report.found_something


def test_a_bundle_of_packets_tells_doctor_about_nodes() -> None:
    report = api.doctor(api.BundleSource(INCIDENT), areas=["policy"]).report
    assert "my-llama-ingress-policy" in {f.object.name for f in report.findings if f.object}


def test_matrix_has_a_cell_for_two_workloads() -> None:
    grid = api.matrix(api.BundleSource(INCIDENT))
    source = next(group for group in grid.groups if group.name.startswith("default/chatbot-ui"))
    destination = next(group for group in grid.groups if group.name.startswith("default/my-llama"))
    assert "deny" in {verdict.value for verdict in grid.cell(source, destination).values()}


def test_manifests_have_no_packets_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}}"
    )
    source = api.ManifestsSource([str(tmp_path)])
    for verb in (api.trace, api.drops, api.dns):
        with pytest.raises(api.GenainetError, match="so no packets can be watched"):
            verb(source, "svc/a")


def test_the_program_that_asks_about_the_past_prints_what_came_before(tmp_path: Path) -> None:
    write(str(tmp_path / "incident.gnb"), two_incidents())
    line = next(line for line in PAST.splitlines() if line.startswith("tonight = "))
    program = PAST.replace(
        line, 'from kubectl_genainet.api import BundleSource\ntonight = BundleSource("incident.gnb")'
    )
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert " s before: " in done.stdout


def test_a_timeline_names_when_it_began_and_what_came_before(tmp_path: Path) -> None:
    write(str(tmp_path / "incident.gnb"), two_incidents())
    result = timeline(BundleSource(tmp_path / "incident.gnb"), "svc/my-llama-svc")
    assert result.found and result.timeline.onsets[0].suspects


def test_the_past_needs_a_time_zone_and_a_source_with_recorders(tmp_path: Path) -> None:
    write(str(tmp_path / "incident.gnb"), two_incidents())
    since, until = datetime(2026, 1, 31, 3, tzinfo=UTC), datetime(2026, 1, 31, 4, tzinfo=UTC)
    with pytest.raises(InputError, match="time zone"):
        past(LabSource("none"), since.replace(tzinfo=None), until)
    with pytest.raises(InputError, match="what is in a file has its own"):
        past(BundleSource(tmp_path / "incident.gnb"), since, until)
    assert "03:00:00Z to 2026-01-31T04:00:00Z" in str(past(LabSource("none"), since, until).when)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda source: api.doctor(source, areas=["dns"]), "no area 'dns'"),
        (lambda source: api.doctor(source, measure_s=-1), "-1 s is no time to watch"),
        (lambda source: api.matrix(source, port=99999), "99999 is not a port"),
        (lambda source: api.matrix(source, protocol="IPX"), "no protocol 'IPX'"),
        (lambda source: api.trace(source, "svc/my-llama-svc", timeout_s=0), "0 s is no time to watch"),
        (lambda source: api.fabric(source, seconds=1e9), "1e+09 s is no time to watch"),
    ],
)
def test_an_argument_that_is_none_of_its_kind_is_an_input_error(
    call: Callable[[api.Source], object], problem: str
) -> None:
    with pytest.raises(InputError, match=re.escape(problem)):
        call(BundleSource(INCIDENT))
