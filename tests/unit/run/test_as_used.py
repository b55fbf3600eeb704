"""Commands that results suggest run as they are printed: with the options that say where the facts came from."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.finding import Remedy
from kubectl_genainet.run.as_used import AsUsed, errors_as_used
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.sources.clickhouse import ClickHouseSource
from kubectl_genainet.run.sources.cluster import ClusterSource
from kubectl_genainet.run.sources.history import HistorySource, TimeRange
from kubectl_genainet.run.sources.lab import LabSource
from kubectl_genainet.run.sources.manifests import ManifestsSource

EXPLAIN = "kubectl genainet explain pod/a/b pod/a/c:80 --patch"


@pytest.mark.parametrize(
    ("source", "command", "shown"),
    [
        (LabSource(), EXPLAIN, f"{EXPLAIN} --lab"),
        (LabSource("two", namespace="ai"), EXPLAIN, f"{EXPLAIN} --lab two -n ai"),
        (BundleSource("my bundle.gnb"), EXPLAIN, f"{EXPLAIN} --from 'my bundle.gnb'"),
        (ManifestsSource(("k8s",)), EXPLAIN, f"{EXPLAIN} --manifests k8s"),
        (ClusterSource(), EXPLAIN, EXPLAIN),
        (ClusterSource(context="prod", user="jane"), EXPLAIN, f"{EXPLAIN} --context prod --as jane"),
        (LabSource(namespace="ai"), "kubectl genainet dns -n other", "kubectl genainet dns -n other --lab"),
        (LabSource(), "kubectl get pods", "kubectl get pods"),
        (LabSource(), "kubectl genainet lab down", "kubectl genainet lab down"),
    ],
)
def test_the_options_of_the_source_are_added_once(source: Source, command: str, shown: str) -> None:
    assert AsUsed(source.options).command(command) == shown


def test_a_command_within_a_sentence_has_them_too() -> None:
    remedy = Remedy("Look at kube-proxy; `kubectl genainet rules` compares its rules. Not `ip rule`.")
    used = AsUsed(LabSource("two").options).remedy(remedy)
    assert used is not None and used.command == ""
    assert used.text == "Look at kube-proxy; `kubectl genainet rules --lab two` compares its rules. Not `ip rule`."


def past(since_s: float, until_s: float) -> HistorySource:
    times = (datetime.fromtimestamp(t, UTC).isoformat() for t in (since_s, until_s))
    options = tuple(zip(("--since", "--until"), times, strict=True))
    return HistorySource(LabSource(), TimeRange(int(since_s * 1e9), int(until_s * 1e9), options))


@pytest.mark.parametrize(
    ("command", "happened_s", "at_s"),
    [
        (EXPLAIN, 1_000_030.5, 1_000_032),  # an earlier range was shown: the flow passed at its begin
        ("kubectl genainet rules", 1_000_030.5, 1_000_032),
        (EXPLAIN, 1_000_059.9, 1_000_059),
    ],
)
def test_what_shows_the_begin_of_a_time_is_asked_for_the_moment_at_which_it_happened(
    command: str, happened_s: float, at_s: float
) -> None:
    used = AsUsed(past(1_000_000, 1_000_060).options)
    happened = datetime.fromtimestamp(happened_s, UTC).isoformat()
    shown = used.command(command, happened).split()
    assert datetime.fromisoformat(shown[shown.index("--at") + 1]).timestamp() == at_s
    assert "--since" not in shown and "--until" not in shown
    assert used.command(" ".join(shown)).split() == shown  # told once


def test_what_shows_all_of_a_time_is_asked_for_all_of_it() -> None:
    used = AsUsed(past(1_000_000, 1_000_060).options)
    happened = datetime.fromtimestamp(1_000_030, UTC).isoformat()
    for command, moment in (("kubectl genainet trace svc/a", happened), (EXPLAIN, "")):
        assert used.command(command, moment).split()[-4:] == [
            "--since",
            "1970-01-12T13:46:40+00:00",
            "--until",
            "1970-01-12T13:47:40+00:00",
        ]


def test_a_password_in_the_name_of_a_table_is_in_no_suggested_command() -> None:
    when = TimeRange(0, 10**9)
    for password in ("secret", "sec:ret", "sec@ret"):
        table = ClickHouseSource(f"clickhouse://reader:{password}@host/db?secure=1").within(when)
        shown = AsUsed(table.options).command("kubectl genainet trace svc/a")
        assert shown.startswith("kubectl genainet trace svc/a --from 'clickhouse://reader@host/db?secure=1'"), shown


PROD = ClusterSource(context="prod", kubeconfig="my config", user="jane", groups=("dev", "ops"))
PROD_OPTIONS = "--context prod --kubeconfig 'my config' --as jane --as-group dev --as-group ops"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("kubectl -n ai get pods", f"kubectl {PROD_OPTIONS} -n ai get pods"),
        (
            "kubectl get svc a -o yaml | kubectl apply -f -",
            f"kubectl {PROD_OPTIONS} get svc a -o yaml | kubectl {PROD_OPTIONS} apply -f -",
        ),
        (
            "X=$(kubectl get ns)\nkubectl label ns a b=c",
            f"X=$(kubectl {PROD_OPTIONS} get ns)\nkubectl {PROD_OPTIONS} label ns a b=c",
        ),
        ("kubectl annotate svc a 'x=see kubectl docs'", f"kubectl {PROD_OPTIONS} annotate svc a 'x=see kubectl docs'"),
        ("aws ec2 describe-subnets", "aws ec2 describe-subnets"),
        ("kubectl genainet deploy --record", f"kubectl genainet deploy --record {PROD_OPTIONS}"),
    ],
)
def test_kubectls_own_commands_go_to_the_cluster_that_was_asked(command: str, shown: str) -> None:
    """The current context may be another cluster."""
    assert AsUsed(PROD.options).command(command) == shown


@pytest.mark.parametrize(
    ("source", "command", "shown"),
    [
        (ManifestsSource(("k8s",)), "kubectl genainet dns -n ai", "kubectl genainet dns -n ai"),
        (BundleSource("b.gnb"), "kubectl genainet deploy", "kubectl genainet deploy"),
        (BundleSource("b.gnb"), "kubectl genainet status", "kubectl genainet status"),
        (LabSource("two", namespace="ai"), "kubectl genainet status", "kubectl genainet status --lab two"),
        (BundleSource("b.gnb"), "kubectl genainet trace svc/a --exact", "kubectl genainet trace svc/a --exact"),
        (
            BundleSource("b.gnb"),
            "kubectl genainet trace TARGET --record FILE",
            "kubectl genainet trace TARGET --record FILE",
        ),
        (LabSource("two", namespace="ai"), "kubectl genainet drops -A", "kubectl genainet drops -A --lab two"),
    ],
)
def test_an_option_that_a_verb_does_not_take_is_not_added(source: Source, command: str, shown: str) -> None:
    assert AsUsed(source.options).command(command) == shown


def test_what_watches_is_not_sent_to_a_recording_without_packets() -> None:
    used = AsUsed(BundleSource("b.gnb").options, watched=False)
    assert used.command("kubectl genainet dns -n ai") == "kubectl genainet dns -n ai"
    assert used.command(EXPLAIN) == f"{EXPLAIN} --from b.gnb"


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("kubectl genainet deploy --record", f"kubectl genainet deploy --record {PROD_OPTIONS}"),
        ("`kubectl genainet status` says why.", f"`kubectl genainet status {PROD_OPTIONS}` says why."),
        ("Give an address.", "Give an address."),
    ],
)
def test_an_error_says_to_run_what_goes_to_the_same_cluster(hint: str, said: str) -> None:
    with pytest.raises(GenainetError) as caught, errors_as_used(lambda: PROD.options):
        raise GenainetError("there are no agents", hint)
    assert caught.value.hint == said
