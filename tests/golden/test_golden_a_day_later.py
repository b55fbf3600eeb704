"""A day later: what the lab's bundles have was recorded by recorders, and every verb says of it what it said live.

The recorders and the agents' servers are real; they were fed with the bundles' records, by the clocks of the bundles' nodes.
"""

from __future__ import annotations

import copy
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged
from kubectl_genainet.run.sources.choice import SourceChoice
from tests.golden import test_golden_trace, test_golden_verbs
from tests.golden.recordings import HERE, bundle_of
from tests.recordertest import CHANGED_S, record, served

DAY_S = 86_400
# Of a suggested command the source, which is another one, and where the line is broken for it.
SOURCE = re.compile(r"( \\\n)? +--(from|since|until|at|lab)(( \\\n)? +[^\s-]\S*)?")
# How long a reply had made no progress when that was looked at: a recorder keeps a connection's counters every 5 s.
SILENCE = re.compile(r"arrived for [0-9.]+ s")
WIDTH = 200
# text -> (bundle, command line)
LIVE = {
    **{
        f"trace-{name}-{WIDTH}": (name, ("trace", target))
        for name, (_, target, _) in test_golden_trace.RECORDINGS.items()
    },
    **{
        f"{name}-table-{WIDTH}": (name, (verb, *arguments))
        for name, (verb, _, arguments, _) in test_golden_verbs.RECORDINGS.items()
        if name != "dns-ndots-waste"
    },
}


class Past:
    """What was recorded of a bundle, asked for a day after it."""

    def __init__(
        self,
        bundle: str,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        since_then: ClusterSnapshot | None = None,
        more_s: int = 0,
    ) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        recordings = folder / "recordings"
        begin_ns, end_ns = record(read_bundle(bundle_of(bundle)), recordings, since_then=since_then, more_s=more_s)
        self.begin_s, self.end_s = begin_ns // 1000 / 1e6, (end_ns // 1000 + 2) / 1e6

    def ask(self, *command: str, since_s: float = 0.0, until_s: float = 0.0) -> Result:
        self._monkeypatch.setattr(time, "time", lambda: self.end_s + DAY_S)
        times = (since_s or self.begin_s, until_s or self.end_s)
        since, until = (datetime.fromtimestamp(t, UTC).isoformat() for t in times)
        with served(self._folder / "recordings", self._folder / "sockets") as cluster:
            self._monkeypatch.setattr(SourceChoice, "open", lambda *_: cluster)
            arguments = [*command, "--since", since, "--until", until]
            return CliRunner(env={"COLUMNS": str(WIDTH)}).invoke(cli, arguments, catch_exceptions=False)


@pytest.mark.parametrize("text", LIVE)
def test_a_day_later_a_verb_says_what_it_said_live(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, command = LIVE[text]
    done = Past(bundle, tmp_path, monkeypatch).ask(*command)
    assert without_source(done.stdout) == without_source((HERE / f"{text}.txt").read_text()), done.stderr


def test_a_policy_that_is_gone_and_an_address_that_another_pod_has_do_not_change_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, text = "policy-service-port", f"trace-policy-service-port-{WIDTH}"
    past = Past(bundle, tmp_path, monkeypatch, since_then=without_policies_and_with_other_pods(bundle))
    done = past.ask("trace", "svc/my-llama-svc")
    assert without_source(done.stdout) == without_source((HERE / f"{text}.txt").read_text()), done.stderr
    asked = ("explain", "deploy/chatbot-ui", "svc/my-llama-svc")
    assert "default/my-llama-ingress-policy" in past.ask(*asked).stdout
    later_s = past.end_s + 2 * CHANGED_S
    later = past.ask(*asked, since_s=later_s, until_s=later_s + 1)
    assert later.stdout and "my-llama-ingress-policy" not in later.stdout, later.stderr


def test_policies_of_a_time_of_which_no_objects_were_recorded_are_said_to_be_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past("policy-service-port", tmp_path, monkeypatch)
    asked = ("explain", "deploy/chatbot-ui", "svc/my-llama-svc")
    missing = "the cluster's objects: nothing is known from"
    for since_s, is_missing in ((past.begin_s, False), (past.end_s + 2 * CHANGED_S, True)):
        done = past.ask(*asked, since_s=since_s, until_s=since_s + 2)
        assert "default/my-llama-ingress-policy" in done.stdout
        assert f"as it was at {datetime.fromtimestamp(since_s, UTC).isoformat()[:19]}Z" in done.stderr
        assert (missing in " ".join(done.stderr.split())) is is_missing, done.stderr


def test_rules_that_may_be_older_than_a_change_of_the_endpoints_are_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = copy.deepcopy([obj.raw for obj in read_bundle(bundle_of("healthy")).snapshot.objects])
    for raw in objects:
        if raw["kind"] == "EndpointSlice" and raw["metadata"]["name"].startswith("my-llama-svc"):
            raw["endpoints"] = raw["endpoints"][:1]
    past = Past("healthy", tmp_path, monkeypatch, since_then=ClusterChanged(objects=objects).snapshot, more_s=20)
    doubt = "the endpoints of default/my-llama-svc changed within 20 s before that time"
    changed_s = past.end_s + CHANGED_S
    for since_s, is_doubtful in ((past.begin_s, False), (changed_s + 4, True)):
        done = past.ask("rules", "svc/my-llama-svc", since_s=since_s, until_s=since_s + 2)
        assert (doubt in done.stderr) is is_doubtful, done.stderr
        assert f"as it was at {datetime.fromtimestamp(since_s, UTC).isoformat()[:19]}Z" in done.stderr


def without_policies_and_with_other_pods(bundle: str) -> ClusterSnapshot:
    """What became of the objects: no policy is left, and pods that have the backends' addresses are another workload's."""
    objects = copy.deepcopy([obj.raw for obj in read_bundle(bundle_of(bundle)).snapshot.objects])
    for raw in objects:
        labels = raw["metadata"].get("labels") or {}
        if raw["kind"] == "Pod" and raw["metadata"]["name"].startswith("my-llama-finetuned"):
            raw["metadata"] |= {"name": f"reused-{raw['status']['podIP']}", "uid": raw["status"]["podIP"]}
            raw["metadata"]["labels"] = dict.fromkeys(labels, "reused")
    return ClusterChanged(objects=[raw for raw in objects if raw["kind"] != "NetworkPolicy"]).snapshot


def without_source(text: str) -> str:
    return SILENCE.sub("arrived for a while", SOURCE.sub("", text))
