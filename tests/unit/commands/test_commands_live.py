"""The live verbs, with the outside world replaced at its border: a lab's files and its agents' sockets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.model.results.lab import LabStatus
from kubectl_genainet.run.policies.explain import FlowsBetween
from kubectl_genainet.run.session import LiveSession
from kubectl_genainet.run.sources.choice import SourceChoice
from kubectl_genainet.run.watch import watched_source
from tests.unit.commands.fake_lab import NAME, FakeLab, fake_lab

TARGET = "svc/my-llama-svc"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLab]:
    with fake_lab(tmp_path / "labs", read_bundle(recordings() / "healthy.gnb"), monkeypatch) as made:
        yield made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, f"--lab={NAME}"], standalone_mode=False)


def records(done: Result) -> list[dict[str, Any]]:
    assert done.exception is None, done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_live_trace_says_what_the_replay_of_the_same_records_says(lab: FakeLab) -> None:
    live = records(run("trace", TARGET, "-o", "json", "--timeout", "3s"))
    replayed = CliRunner().invoke(cli, ["trace", TARGET, "--from", str(recordings() / "healthy.gnb"), "-o", "json"])
    again = [json.loads(line) for line in replayed.stdout.splitlines()]
    key = "connections"
    assert live[-1][key] == again[-1][key] > 0
    assert live[-1]["verdicts"] == again[-1]["verdicts"]
    assert {node for node, request in lab.requests.items() if request.filters} == set(lab.nodes)


def test_filters_that_leave_nothing_say_so_and_only_other_ends_are_nothing_seen(lab: FakeLab) -> None:
    """All connections are forwarded: that none was dropped is an answer, of a client that made none there is none."""
    for option, value, status in (
        ("--verdict", "dropped", ExitStatus.OK),
        ("--from", "deploy/nobody", ExitStatus.TIMED_OUT),
    ):
        done = run("trace", TARGET, "--timeout", "3s", option, value)
        assert done.return_value is status
        assert "match none of the" in done.stderr and f"connections to {TARGET} that were seen" in done.stderr


def test_a_filter_that_names_nothing_of_the_cluster_is_told_from_one_that_nobody_matched(lab: FakeLab) -> None:
    for option, value, said in (
        ("--from", "deploy/chatbot-u", "no Deployment 'chatbot-u'. Did you mean chatbot-ui?"),
        ("--from", "svc/qdrannt", "no Service 'qdrannt'. Did you mean qdrant?"),
        ("--to", "node/node-9", "no Node 'node-9'. Did you mean node-"),
        ("--to", "ns/defalt", "no Namespace 'defalt'. Did you mean default"),
        ("--from", "deploy/rag-app", ""),
    ):
        done = run("trace", TARGET, "--timeout", "3s", option, value)
        assert (said in done.stderr) if said else "Did you mean" not in done.stderr, done.stderr


def test_ctrl_c_before_there_is_a_result_is_130_and_blames_no_agent(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[object]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(LiveSession, "_records", interrupted)
    lab.refuses = set(lab.nodes)  # as an agent does that is told to stop while it loads its probes
    done = run("trace", TARGET, "--timeout", "3s")
    assert done.exception is None and done.return_value is ExitStatus.INTERRUPTED
    assert "0 connections" in done.stdout
    assert f"stopped before the probes were loaded on {', '.join(lab.nodes)}" in done.stderr
    assert "node node-1:" not in done.stderr


def test_an_interrupt_while_modules_are_imported_shows_no_traceback() -> None:
    """The entry point leaves SIGINT to the system until the command line is there."""
    code = (
        "import runpy, signal, sys; sys.argv = ['kubectl-genainet', '--help']\n"
        "class Importing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'kubectl_genainet.cli': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Importing())\n"
        "runpy.run_module('kubectl_genainet', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_explain_watched_answers_again_when_a_policy_changes_the_answer(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_genainet.run.watch.LOOK_S", 0.01)
    objects = [o.raw for o in lab.bundle.snapshot.objects]
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "nobody", "namespace": "default"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    }
    source = SourceChoice(lab=NAME).open(lambda _: None)
    answers = watched_source(
        source,
        lambda: FlowsBetween(source, "deploy/chatbot-ui", "svc/my-llama-svc"),
        lambda answer: answer.flows,
        lambda _: None,
        nodes=False,
    )
    assert next(answers).all_admitted
    lab.write_objects([*objects, policy])
    assert not next(answers).all_admitted
    lab.write_objects(objects)
    assert next(answers).all_admitted
    for refused in (("--patch",), ("--from", str(recordings() / "healthy.gnb"))):
        place = () if "--from" in refused else (f"--lab={NAME}",)
        asked = ["explain", "deploy/chatbot-ui", "svc/my-llama-svc", "--watch", *refused, *place]
        assert CliRunner().invoke(cli, asked).exit_code == ExitStatus.FAILED


def without_endpoints(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [o for o in objects if o["kind"] != "EndpointSlice"]


@pytest.mark.parametrize(
    ("verb", "once"),
    [(("rules", TARGET), "in step"), (("doctor", "--measure", "0", "--only", "services"), "0 errors")],
    ids=["rules", "doctor"],
)
def test_a_watched_verb_answers_again_when_something_else_is_wrong(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], once: str
) -> None:
    objects = [o.raw for o in lab.bundle.snapshot.objects]
    looks = iter((lambda: None, lambda: lab.write_objects(without_endpoints(objects))))

    def between(_: float) -> None:
        look = next(looks, None)
        if look is None:
            raise KeyboardInterrupt
        look()

    monkeypatch.setattr("kubectl_genainet.run.watch.sleep", between)
    alone = run(*verb)
    watched = run(*verb, "--watch")
    assert watched.stdout.startswith(alone.stdout) and once in alone.stdout
    assert len(watched.stdout) > len(alone.stdout) and watched.stderr.count("changed, ") == 1
    assert CliRunner().invoke(cli, [*verb, "--watch", "--from", "x.gnb"]).exit_code == ExitStatus.FAILED


def test_a_watched_lab_is_shown_again_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(("up", "up", "degraded"))

    def status(name: str) -> LabStatus:
        state = next(states, None)
        if state is None:
            raise KeyboardInterrupt
        return LabStatus(
            name=name,
            state=state,
            nodes=(),
            proxy_mode="iptables",
            overlay="none",
            ip_families=("ipv4",),
            policy_enforcer="nobody",
            pods=(),
            agents={},
            incidents=(),
            problems=(),
        )

    monkeypatch.setattr("kubectl_genainet.commands.lab.lab_status", status)
    monkeypatch.setattr("kubectl_genainet.run.watch.sleep", lambda _: None)
    done = run("lab", "status", "--watch", "-o", "jsonpath={.state}")
    assert done.stdout.splitlines() == ["up", "degraded"]


def test_a_recorded_run_can_be_replayed(lab: FakeLab, tmp_path: Path) -> None:
    file = tmp_path / "run.gnb"
    done = run("trace", TARGET, "--timeout", "3s", "--record", str(file))
    assert done.return_value is ExitStatus.OK and f"recorded in {file}" in done.stderr
    assert read_bundle(file).header.command == "trace"
    assert "FORWARDED" in CliRunner().invoke(cli, ["trace", TARGET, "--from", str(file)]).stdout


@pytest.mark.parametrize("verb", ["trace", "drops", "dns"])
def test_a_service_deleted_while_a_live_run_goes_on_does_not_end_it(
    verb: str, lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_genainet.run.session.REFRESH_S", 0.05)
    left = [o.raw for o in lab.bundle.snapshot.objects if (o.kind, o.name) != ("Service", "my-llama-svc")]

    def delete() -> None:
        lab.write_objects(left)
        time.sleep(1.0)

    lab.before_end = delete
    done = run(verb, TARGET, "-o", "json", "--timeout", "5s")
    summary = next(r for r in records(done) if r["kind"].endswith("summary"))
    assert summary["nodes"] == lab.nodes and summary["silent_nodes"] == []
    assert "its last addresses are followed" in done.stderr


@pytest.mark.parametrize("verb", ["drops", "dns"])
def test_a_verb_asks_the_agents_for_its_own_probe(verb: str, lab: FakeLab) -> None:
    done = run(verb, "--timeout", "3s", "-n", "default")
    assert done.exception is None
    assert {request.probes for request in lab.requests.values()} == {(verb,)}


def test_dns_without_a_query_ends_as_timed_out(lab: FakeLab) -> None:
    done = run("dns", "--timeout", "3s")
    assert done.return_value is ExitStatus.TIMED_OUT
    assert "no DNS query of the cluster was seen" in done.stderr


def test_nothing_seen_without_a_node_is_no_nothing_seen(lab: FakeLab) -> None:
    """What was asked about may have passed there."""
    lab.refuses = {"node-2"}
    done = run("dns", "--timeout", "3s")
    assert done.return_value is ExitStatus.FAILED and "node node-2" in done.stderr


def test_names_are_hashed_where_that_is_asked_for(lab: FakeLab) -> None:
    run("dns", "--timeout", "3s", "--redact")
    options = [request.options for request in lab.requests.values()]
    assert all(o["redact"] and o["search"] and "cluster.local" not in o["search"].split(".")[0] for o in options)


def test_one_agent_that_fails_is_warned_of_and_the_others_go_on(lab: FakeLab) -> None:
    lab.refuses = {"node-2"}
    done = run("trace", TARGET, "--timeout", "3s", "-o", "json")
    assert "node node-2" in done.stderr and "out of order" in done.stderr
    assert records(done)[-1]["nodes"] == ["node-1", "node-3"]


@pytest.mark.parametrize(
    "command",
    [
        ("trace", TARGET, "--timeout", "3s"),
        ("drops", "--timeout", "3s"),
        ("diagnose", TARGET, "--for", "3s"),
        ("rules", TARGET),
        ("rules", TARGET, "--exact", "1"),
        ("rules", "why", "10.244.1.2", "10.244.2.2:8080"),
        ("rules", TARGET, "--host-firewall"),
        ("doctor", "--only", "kube-proxy"),
    ],
    ids=" ".join,
)
def test_nothing_wrong_on_the_nodes_that_answered_is_no_success(lab: FakeLab, command: tuple[str, ...]) -> None:
    lab.refuses = {"node-2"}
    done = run(*command, "-o", "json")
    assert (done.exception, done.return_value) == (None, ExitStatus.FAILED), done.stderr
    assert "node node-2" in done.stderr


@pytest.mark.parametrize(
    "source", [("--timeout", "3s", f"--lab={NAME}"), ("--from", str(recordings() / "healthy.gnb"))]
)
def test_a_recording_for_which_there_is_no_room_is_no_success(lab: FakeLab, source: tuple[str, ...]) -> None:
    arguments = ["trace", TARGET, "--record", "/dev/full", *source]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert "the bundle /dev/full ends early: No space left on device" in done.stderr
    assert (done.exception, done.return_value) == (None, ExitStatus.FAILED)


def test_where_every_agent_fails_the_command_has_failed(lab: FakeLab) -> None:
    lab.refuses = set(lab.nodes)
    done = run("drops", "--timeout", "3s", "-n", "default")
    assert isinstance(done.exception, GenainetError) and "out of order" in done.exception.message


def test_a_node_without_an_agent_is_named_with_those_that_have_one(lab: FakeLab) -> None:
    done = run("trace", TARGET, "--node", "node-9")
    assert isinstance(done.exception, GenainetError) and "node-1" in done.exception.hint


def test_a_client_pod_limits_the_trace_to_its_packets_and_opens_connections_on_its_node(lab: FakeLab) -> None:
    snapshot = lab.bundle.snapshot
    client = next(p for p in snapshot.pods if p.metadata.name.startswith("chatbot-ui"))
    arguments = ("--from-pod", f"pod/{client.metadata.name}", "--check", "--check-count", "2", "--path", "/healthz")
    paths = records(run("trace", TARGET, *arguments, "-o", "json", "--timeout", "3s"))
    asked = {node: request.check for node, request in lab.requests.items() if request.check is not None}
    assert set(asked) == {client.spec.node_name}
    (check,) = asked.values()
    assert check is not None and (check.count, check.path, check.from_ip) == (2, "/healthz", client.ips[0])
    assert {p["flow"]["client"]["pod"] for p in paths if p["kind"] == "path"} <= {client.metadata.name}


def test_rules_of_live_nodes_are_compared_with_the_api(lab: FakeLab) -> None:
    done = run("rules", TARGET, "-o", "json")
    rows = [r for r in records(done) if r["kind"] == "rules"]
    assert {row["node"] for row in rows} == set(lab.nodes) and done.return_value is ExitStatus.OK


def test_rules_warns_of_a_node_that_does_not_answer(lab: FakeLab) -> None:
    lab.refuses = {"node-3"}
    done = run("rules", TARGET, "-o", "json")
    assert "warning:" in done.stderr and "out of order" in done.stderr
    assert {r["node"] for r in records(done) if r["kind"] == "rules"} == {"node-1", "node-2"}


def test_doctor_asks_the_nodes_and_measures_dns(lab: FakeLab) -> None:
    done = run("doctor", "--only", "lookups", "--measure", "3s", "-o", "json")
    checked = [r for r in records(done) if r["kind"] == "check"]
    assert checked and "measuring DNS for 3 s" in done.stderr
    assert {request.probes for request in lab.requests.values()} == {("dns",)}
