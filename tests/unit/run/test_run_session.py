"""What the verbs that watch packets share: Ctrl-C never in the middle of a record, what can't be judged."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import BundleWriter, read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.run.interrupts import Interrupts


def test_ctrl_c_waits_until_a_record_is_taken_in() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the record")
        with interrupts.held():
            done.append("the next record")
    assert done == ["the rest of the record", "the next record"]


def test_ctrl_c_between_records_and_a_second_one_interrupt_at_once() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("never")
        with interrupts.held():
            done.append("what follows")
    assert done == ["what follows"]


def test_what_was_there_for_sigint_is_there_again() -> None:
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, ignored)


def test_a_policy_that_is_not_valid_is_named_and_the_verdict_is_left_open(tmp_path: Path) -> None:
    recorded = read_bundle(recordings() / "policy-service-port.gnb")
    broken = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "odd"},
        "spec": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Near", "values": ["x"]}]}},
    }
    snapshot = ClusterSnapshot((*recorded.snapshot.objects, KubeObject(broken)))
    with BundleWriter(tmp_path / "odd.gnb", recorded.header, snapshot) as bundle:
        for event in recorded.events:
            bundle.write(event)
    done = CliRunner().invoke(cli, ["trace", "svc/my-llama-svc", "--from", str(tmp_path / "odd.gnb")])
    assert "warning: not evaluated" in done.stderr and "odd" in done.stderr and "Near" in done.stderr
    assert "the rule is lab's, for default/my-llama-ingress-policy [derived]" in done.stdout
    assert "the policies' verdict is not known: NetworkPolicy default/odd" in done.stdout
    assert "by the API's objects" not in done.stdout


def test_a_field_that_is_not_evaluated_leaves_the_verdict_open(tmp_path: Path) -> None:
    recorded = read_bundle(recordings() / "policy-service-port.gnb")
    seventh = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"namespace": "default", "name": "l7"},
        "spec": {
            "endpointSelector": {},
            "ingress": [
                {
                    "fromEndpoints": [{}],
                    "toPorts": [
                        {"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}
                    ],
                }
            ],
        },
    }
    objects = tuple(o for o in recorded.snapshot.objects if o.kind != "NetworkPolicy")
    with BundleWriter(tmp_path / "l7.gnb", recorded.header, ClusterSnapshot((*objects, KubeObject(seventh)))) as bundle:
        for event in recorded.events:
            bundle.write(event)
    done = CliRunner().invoke(cli, ["trace", "svc/my-llama-svc", "--from", str(tmp_path / "l7.gnb")])
    assert "the policies' verdict is not known: CiliumNetworkPolicy default/l7" in done.stdout
    assert "by the API's objects" not in done.stdout
