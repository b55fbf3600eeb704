"""What verbs say to a user who may list some kinds in one namespace: nothing of what may not be read is called absent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kubectl_genainet.bundle import BundleWriter, read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.events import ClusterChanged
from tests.unit.commands.fake_api import FakeApi, Object, fake_api

SERVICE = "svc/my-llama-svc"
GROUPS = {"discovery.k8s.io": ("endpointslices",), "networking.k8s.io": ("networkpolicies",)}
LIST = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?P<one>/.*)?"
)


class PartlyReadable(FakeApi):
    """Lets its user list pods and Services of the namespace default, and read nothing else."""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Object]:
        if path == "/apis":
            versions = {group: [{"groupVersion": f"{group}/v1", "version": "v1"}] for group in GROUPS}
            return 200, {"groups": [{"name": group, "versions": of} for group, of in versions.items()]}
        if (group := path.removeprefix("/apis/").removesuffix("/v1")) in GROUPS:
            return 200, {"resources": [{"name": plural, "kind": plural} for plural in GROUPS[group]]}
        asked = LIST.fullmatch(path)
        if asked and (asked["namespace"] != "default" or asked["plural"] not in ("pods", "services")):
            what = f'User "ana" cannot {"get" if asked["one"] else "list"} resource "{asked["plural"]}"'
            status = {"kind": "Status", "reason": "Forbidden", "code": 403}
            return 403, {**status, "message": f"{asked['plural']} is forbidden: {what}"}
        return super().answer(method, path, query, body)


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("tests.unit.commands.fake_api.FakeApi", PartlyReadable)
    with fake_api(tmp_path) as (api, kubeconfig):
        for name, app in (("llama-0", "llama"), ("ui-0", "ui")):
            pod = {
                "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}]},
                "status": {"phase": "Running", "podIP": f"10.244.1.{len(name)}"},
            }
            api.put(f"/api/v1/namespaces/default/pods/{name}", pod)
        service = {
            "metadata": {"name": "my-llama-svc", "namespace": "default"},
            "spec": {
                "clusterIP": "10.96.0.9",
                "selector": {"app": "llama"},
                "ports": [{"port": 80, "protocol": "TCP"}],
            },
        }
        api.put("/api/v1/namespaces/default/services/my-llama-svc", service)
        yield kubeconfig


@pytest.mark.parametrize("verb", [("trace", SERVICE), ("diagnose", SERVICE), ("drops", SERVICE)])
def test_endpoints_that_may_not_be_listed_are_not_called_absent(kubeconfig: str, verb: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*verb, "--kubeconfig", kubeconfig], standalone_mode=False)
    assert isinstance(done.exception, GenainetError) and "genainet-trace" in done.exception.hint
    assert "no ready endpoint" not in done.stderr
    assert "EndpointSlice, NetworkPolicy, Namespace, Node may not be listed" in done.stderr
    assert "Pod, Service may be listed only in namespace default" in done.stderr
    assert "The ClusterRole genainet-view may list them" in done.stderr


def test_a_matrix_of_all_namespaces_says_that_it_has_one(kubeconfig: str) -> None:
    done = CliRunner().invoke(cli, ["matrix", "-A", "--kubeconfig", kubeconfig], standalone_mode=False)
    (row,) = [line for line in done.stdout.splitlines() if "default/ui-0" in line]
    assert "?" in row and "✓" not in row
    assert "Pod, Service may be listed only in namespace default" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("-A",), 2),  # nothing is found, and all namespaces but one were not read
        (("-n", "default", "--only", "pod-without-ip"), 0),  # it needs the pods of the namespace alone
        (("-n", "default", "--only", "policy-none"), 2),
        (
            (
                "-n",
                "default",
            ),
            1,
        ),  # what is found is found
    ],
)
def test_doctor_is_not_content_with_a_part_of_what_it_was_asked(
    kubeconfig: str, arguments: tuple[str, ...], status: int
) -> None:
    done = CliRunner().invoke(cli, ["doctor", *arguments, "--kubeconfig", kubeconfig], standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == status, done.output
    assert "EndpointSlice, NetworkPolicy, Namespace, Node may not be listed" in done.stderr
    assert ("may be listed only in namespace default" in done.stderr) is (arguments == ("-A",))


@pytest.mark.parametrize("verb", [("status",), ("deploy", "--no-wait"), ("undeploy",)])
def test_what_is_refused_names_the_role_that_may(kubeconfig: str, verb: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*verb, "--kubeconfig", kubeconfig], standalone_mode=False)
    assert isinstance(done.exception, GenainetError) and "is forbidden" in done.exception.message
    assert "ClusterRole genainet-view, or genainet-admin to deploy and undeploy" in done.exception.hint


def test_a_refused_connection_is_not_blamed_on_endpoints_that_were_not_read(tmp_path: Path) -> None:
    """Of the incident without endpoints, recorded by somebody who may not list EndpointSlices."""
    recorded = read_bundle("tests/golden/bundles/no-endpoints.gnb")
    assert "has no ready endpoint" in traced("tests/golden/bundles/no-endpoints.gnb")
    refused = LeftOut("EndpointSlice", 'endpointslices is forbidden: User "ana" cannot list resource "endpointslices"')
    objects = tuple(obj for obj in recorded.snapshot.objects if obj.kind != "EndpointSlice")
    bundle = str(tmp_path / "partly.gnb")
    with BundleWriter(bundle, recorded.header, ClusterSnapshot(objects, (refused,))) as writer:
        for event in recorded.events:
            if not isinstance(event, ClusterChanged):
                writer.write(event)
    shown = traced(bundle)
    assert "has no ready endpoint" not in shown and "EndpointSlice may not be listed" in shown
    assert "rejects it" in shown or "REJECTED" in shown


def traced(bundle: str) -> str:
    done = CliRunner().invoke(cli, ["trace", SERVICE, "--from", bundle], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.output
