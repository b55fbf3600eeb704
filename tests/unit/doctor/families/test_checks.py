"""Every check: silent on a sound cluster, and exactly the expected finding once one thing is broken."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import CheckOutcome
from kubectl_genainet.model.cluster import LeftOut
from tests.unit.doctor.faults.case import Case, known
from tests.unit.doctor.faults.cases import CASES, report_on
from tests.unit.doctor.faults.dataplane import two_uplinks
from tests.unit.doctor.faults.dns import eks_dns, kubeadm_nodelocal
from tests.unit.doctor.faults.entry import certificate, eks_alb
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.world import NOW, NS, World


@functools.cache
def sound_checks(base: Callable[[], World]) -> frozenset[str]:
    """The checks that find something before anything is broken."""
    return frozenset(f.check for f in base().report().findings)


BASES = (eks, gke, kubeadm, known(eks, 9001), known(gke), known(kubeadm), eks_alb, eks_dns, kubeadm_nodelocal)


@pytest.mark.parametrize("base", BASES, ids=range(len(BASES)))
def test_a_sound_cluster_gives_no_finding(base: Callable[[], World]) -> None:
    assert [(f.check, str(f.object), f.title) for f in base().report().findings] == []


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.name}")
def test_a_fault_is_found_by_its_check_and_by_no_other(case: Case) -> None:
    report = report_on(case)
    found = [f for f in report.findings if f.check == case.check]
    assert {f.check for f in report.findings} == {case.check} | case.also
    assert case.check not in sound_checks(case.base)
    first = next((f for f in found if str(f.object) == case.object), None)
    assert first is not None, [str(f.object) for f in found]
    assert case.field in [e.field for e in first.evidence]
    assert case.severity in (None, first.severity)
    assert first.remedy is None or first.remedy.text


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {c.name for c in all_checks()} - {c.check for c in CASES} == set()


def test_a_sound_cluster_passes_every_check_that_it_has_the_knowledge_for() -> None:
    report = known(kubeadm)().report()
    unchecked = {r.check: r.reasons for r in report.checks if r.outcome is CheckOutcome.NOT_CHECKED}
    measured = ("DNS", "packets", "GPU pods talk")
    assert {name for name, why in unchecked.items() if not any(word in r for r in why for word in measured)} == set()


def test_findings_carry_the_time_of_the_snapshot() -> None:
    assert eks().report().taken_at == NOW


def test_tls_secrets_of_a_live_cluster_are_known_by_their_certificates_only() -> None:
    world = kubeadm()
    certificate(world, "True")
    assert world.report().findings == ()
    world.remove("Certificate", "chat")
    unchecked = {n.what: n.reason for n in world.report().not_checked}
    assert unchecked["ingress-tls"].startswith(
        "Secret chatbot/chat-tls of Ingress chatbot/chat: Secret could not be read"
    )


def test_objects_of_the_namespace_that_is_judged_are_enough_for_checks_of_that_namespace() -> None:
    world = eks()
    world.namespace = NS
    world.get("Service", "qdrant")["spec"]["selector"] = {"app.kubernetes.io/name": "qdrnt"}
    world.left_out += [LeftOut(k, "not listed", NS) for k in ("Service", "Pod", "EndpointSlice", "NetworkPolicy")]
    outcomes = {r.check: r.outcome for r in world.report().checks}
    assert outcomes["service-selector"] is CheckOutcome.FOUND
    assert outcomes["policy-none"] is CheckOutcome.PASSED
    assert outcomes["policy-blocks-call"] is CheckOutcome.NOT_CHECKED  # another namespace's pods may be its callers
    world.namespace = ""
    assert {r.check: r.outcome for r in world.report().checks}["service-selector"] is CheckOutcome.NOT_CHECKED


def test_another_way_back_is_no_fault_while_the_filter_is_loose() -> None:
    world = known(kubeadm)()
    two_uplinks(world, "2")
    assert world.report().findings == ()
