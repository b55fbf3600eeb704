"""`deploy --record`: what it adds, in the plugin and in kustomize, and who records the objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.cli import cli
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.kube.agents.base import DeployOptions, render
from kubectl_genainet.kube.agents.record import HISTORY_CAPABILITY, RecordChoices
from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.kube.objects import HeldObjects, Lease


def rendered(**choices: Any) -> dict[tuple[str, str], dict[str, Any]]:
    objects = render(DeployOptions(**choices))
    return {(o["kind"], o["metadata"]["name"]): o for o in objects}


def test_nothing_of_the_recorder_is_there_unless_asked_for() -> None:
    assert not [name for _, name in rendered() if name in ("genainet-objects", "genainet-history")]
    agent = rendered()["DaemonSet", "genainet-agent"]["spec"]["template"]["spec"]
    assert not any("record" in argument for argument in agent["containers"][0]["args"])
    assert not any("hostPath" in volume for volume in agent["volumes"])


@pytest.mark.parametrize("metrics", [False, True])
def test_the_agents_record_as_chosen_with_and_without_metrics(metrics: bool) -> None:
    choices = RecordChoices("512Mi", "48h", dns=False)
    objects = rendered(record=choices, metrics=metrics, namespace="elsewhere", image="i:1")
    agent = objects["DaemonSet", "genainet-agent"]["spec"]["template"]["spec"]
    arguments = agent["containers"][0]["args"]
    assert {"--record-size=512Mi", "--record-for=48h", "--record-dns=off"} <= set(arguments)
    assert ("--metrics" in arguments) is metrics
    secrets = [v["secret"]["secretName"] for v in agent["volumes"] if "secret" in v]
    assert secrets == ["genainet-trace", HISTORY_CAPABILITY]
    deployment = objects["Deployment", "genainet-objects"]
    assert deployment["metadata"]["namespace"] == "elsewhere" and deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "i:1"
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        assert objects[kind, "genainet-objects"]["subjects"][0]["namespace"] == "elsewhere"


def test_the_role_of_readers_opens_the_recording_and_nothing_else() -> None:
    objects = rendered(record=RecordChoices())
    trace, history = (objects["ClusterRole", f"genainet-{name}"]["rules"] for name in ("trace", "history"))
    secrets = [[r["resourceNames"] for r in rules if r["resources"] == ["secrets"]] for rules in (trace, history)]
    assert secrets == [[["genainet-trace"]], [["genainet-history"]]]
    assert {(resource, *rule["verbs"]) for rule in history for resource in rule["resources"]} == {
        ("pods", "list"),
        ("pods/portforward", "create", "get"),
        ("secrets", "get"),
    }


@pytest.mark.parametrize("choices", [RecordChoices("1Mi"), RecordChoices(reach="5s"), RecordChoices("many")])
def test_a_size_or_a_time_that_is_none_is_refused(choices: RecordChoices) -> None:
    with pytest.raises(InputError):
        render(DeployOptions(record=choices))


def test_the_kustomize_patch_is_what_deploy_does() -> None:
    steps = yaml.safe_load((asset_dir("daemonset") / "record" / "daemonset-patch.yaml").read_text())
    added = [step["value"] for step in steps if step["path"].endswith("/args/-")]
    agent = rendered(record=RecordChoices())["DaemonSet", "genainet-agent"]["spec"]["template"]["spec"]
    assert agent["containers"][0]["args"][-len(added) :] == added


@dataclass
class Leases:
    """An API server with one lease, which answers as the real one does: 404, 409 for an old version."""

    lease: dict[str, Any] | None = None
    writes: list[str] = field(default_factory=list)

    def json(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        if method == "GET":
            if self.lease is None:
                raise ApiError("not found", "", 404, "NotFound")
            return self.lease
        self.writes.append(method)
        version = str(len(self.writes))
        if (
            self.lease is not None
            and body["metadata"].get("resourceVersion") != self.lease["metadata"]["resourceVersion"]
        ):
            raise ApiError("conflict", "", 409, "Conflict")
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        return self.lease


def lease(server: Leases, holder: str) -> Lease:
    return Lease(server, "genainet", "genainet-objects", holder)  # type: ignore[arg-type]


def test_one_recorder_of_objects_holds_the_lease_and_renews_it() -> None:
    server = Leases()
    first, second = lease(server, "a"), lease(server, "b")
    assert [first.hold(), second.hold(), first.hold()] == [True, False, True]
    assert server.writes == ["POST", "PUT"]


def test_a_lease_that_is_not_renewed_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    server, now = Leases(), [0.0]
    monkeypatch.setattr("kubectl_genainet.kube.objects.time.monotonic", lambda: now[0])
    assert lease(server, "a").hold()
    second = lease(server, "b")
    assert not second.hold()
    now[0] = 16.0
    assert second.hold() and not lease(server, "a").hold()


def test_who_does_not_hold_the_lease_records_nothing() -> None:
    server = Leases()
    lease(server, "a").hold()
    held = HeldObjects(None, lease(server, "b"))  # type: ignore[arg-type]
    with pytest.raises(GenainetError, match="another recorder"):
        held.newer()


@pytest.mark.parametrize("option", [("--record-size", "256Mi"), ("--record-for", "1h"), ("--record-dns", "off")])
def test_an_option_of_the_recorder_without_it_is_refused(option: tuple[str, str]) -> None:
    runner = CliRunner()
    alone = runner.invoke(cli, ["deploy", "--dry-run=client", *option])
    assert isinstance(alone.exception, InputError) or "without --record" in alone.output, alone.output
    assert alone.exit_code != 0 and option[0] in str(alone.exception) + alone.output
    assert runner.invoke(cli, ["deploy", "--dry-run=client", "--record", *option]).exit_code == 0
