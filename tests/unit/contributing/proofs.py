"""Run in the copy of the tree that has the examples: each one is where users meet it, and the tree's own tests find it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

import kubectl_genainet
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.cli import cli
from kubectl_genainet.kube.agents.roles import view_rules
from kubectl_genainet.render.diagnoses import diagnoses_markdown
from scripts.incident_index import index_markdown
from scripts.symptoms import symptoms_markdown
from tests.unit.doctor.families import test_practice, test_table
from tests.unit.doctor.faults.cases import CASES


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_this_is_the_copy() -> None:
    assert Path(kubectl_genainet.__file__).parents[1] == Path(__file__).parents[3]


def test_the_probe_can_be_asked_for() -> None:
    assert PROBES["example"].attachments[0].function == "on_receive_reset"


def test_the_diagnosis_and_the_reason_are_in_the_page() -> None:
    page = diagnoses_markdown()
    assert "| `example-diagnosis` |" in page and "| `example-reason` |" in page


def test_the_check_is_listed_and_its_fault_is_found(tmp_path: Path) -> None:
    assert "example-check" in printed("doctor", "--list")
    test_practice.test_every_row_names_checks_and_every_check_is_in_a_row()
    test_table.test_the_clusters_together_have_a_fault_for_every_check()
    (case,) = [case for case in CASES if case.check == "example-check"]
    test_practice.test_a_rows_check_finds_its_fault_and_leaves_the_sound_cluster_alone(case, tmp_path)
    (alone,) = [faults for faults in test_table.CLUSTERS if case.name in faults.names]
    test_table.test_all_faults_of_a_cluster_give_exactly_their_findings(alone)


def test_the_policy_kind_may_be_read() -> None:
    assert "- examplepolicies" in view_rules()


def test_the_incident_is_listed_with_its_symptom() -> None:
    assert "example-incident" in printed("lab", "incident")
    assert "| [example-incident](example-incident.md) |" in index_markdown()
    assert "`example-incident`" in symptoms_markdown()


def test_the_renderer_is_offered() -> None:
    assert "|csv|" in printed("drops", "--help")
