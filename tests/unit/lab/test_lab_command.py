"""The command line of the lab, as far as it needs no lab."""

from __future__ import annotations

from click.shell_completion import BashComplete
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.lab.incidents import incidents


def test_incident_names_are_completed() -> None:
    complete = BashComplete(cli, {}, "kubectl-genainet", "_COMPLETE")
    found = complete.get_completions(["lab", "incident"], "policy-")
    assert {item.value for item in found} == {
        "policy-bypassed",
        "policy-drop",
        "policy-drop-egress",
        "policy-service-port",
    }


def test_incident_without_a_name_lists_all() -> None:
    result = CliRunner().invoke(cli, ["lab", "incident"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == list(incidents())
