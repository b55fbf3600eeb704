"""What follows the names: objects in, the agents' file out, whatever the API server says or does not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.incluster import ServiceAccountClient
from kubectl_genainet.kube.names import Names, _reduced, write
from kubectl_genainet.kube.resources import KINDS, told_name
from kubectl_genainet.model.identities import Identities, Owner
from kubectl_genainet.model.kube import KubeObject


def pod(name: str, ip: str, **spec: Any) -> KubeObject:
    owner = [{"kind": "ReplicaSet", "name": "my-llama-5d8f9"}]
    metadata = {"name": name, "namespace": "chat", "uid": f"uid-{name}", "ownerReferences": owner}
    status = {"phase": "Running", "podIP": ip}
    return KubeObject({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})


def service(name: str, port: str = "http") -> KubeObject:
    spec = {"ports": [{"name": port, "port": 80}]}
    return KubeObject(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "chat"}, "spec": spec}
    )


def slice_of(name: str, *addresses: str) -> KubeObject:
    labels = {"kubernetes.io/service-name": name}
    return KubeObject(
        {
            "apiVersion": "discovery.k8s.io/v1beta1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-1", "namespace": "chat", "labels": labels},
            "endpoints": [{"addresses": [address]} for address in addresses],
            "ports": [{"name": "http", "port": 8080}],
        }
    )


def learned(names: Names, *objects: KubeObject) -> Names:
    for kind in ("Pod", "Service", "EndpointSlice"):
        found = {(o.namespace, o.name): _reduced(o) for o in objects if o.kind == kind}
        names.learn(kind, {key: value for key, value in found.items() if value is not None})
    return names


def test_objects_become_the_file_that_the_agent_reads(tmp_path: Path) -> None:
    objects = (
        pod("a", "10.0.1.2"),
        pod("host", "192.0.2.1", hostNetwork=True),
        service("llm"),
        slice_of("llm", "10.0.1.2"),
    )
    content = learned(Names(), *objects).encode(7.0)
    write(tmp_path / "names.json", content)
    owners = Owners(str(tmp_path / "names.json"))
    owners.reload()
    assert owners.error == ""
    assert owners.identities == Identities(
        7.0,
        {"uid-a": Owner("chat", "my-llama")},
        {"10.0.1.2": Owner("chat", "my-llama")},
        {"10.0.1.2 8080 TCP": ("chat/llm",)},
    )
    assert [path.name for path in tmp_path.iterdir()] == ["names.json"]


def test_nothing_is_written_before_every_kind_was_read_once() -> None:
    names = Names()
    names.learn("Pod", {("chat", "a"): _reduced(pod("a", "10.0.1.2"))})
    assert names.encode(1.0) == b""


def test_a_port_that_the_service_does_not_have_names_no_backend() -> None:
    content = learned(Names(), service("llm", port="grpc"), slice_of("llm", "10.0.1.2")).encode(1.0)
    assert msgspec.json.decode(content, type=Identities).backends == {}


def test_the_time_stands_still_while_a_kind_is_not_followed(capsys: pytest.CaptureFixture[str]) -> None:
    names = learned(Names())
    assert msgspec.json.decode(names.encode(10.0), type=Identities).taken_at == 10
    names.tell("Service", "the API server refused the connection")
    assert msgspec.json.decode(names.encode(20.0), type=Identities).taken_at == 10
    names.tell("Service", "")
    assert msgspec.json.decode(names.encode(30.0), type=Identities).taken_at == 30
    assert "Service: the API server refused" in capsys.readouterr().err


def test_more_objects_than_the_bound_are_left_out_and_that_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    names = Names(most=2)
    many = [pod(f"p{number}", f"10.0.1.{number}") for number in range(5)]
    learned(names, *many)
    learned(names, *many)
    assert len(msgspec.json.decode(names.encode(1.0), type=Identities).uids) == 2
    assert capsys.readouterr().err.count("5 Pod objects: only 2 of them get names") == 1


def test_an_object_that_cannot_be_read_costs_nobody_else_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    broken = KubeObject({"kind": "Pod", "metadata": {"name": "odd", "namespace": "chat", "labels": 3}})
    content = learned(Names(), broken, pod("a", "10.0.1.2")).encode(1.0)
    assert msgspec.json.decode(content, type=Identities).uids.keys() == {"uid-a"}
    assert "Pod chat/odd has no names" in capsys.readouterr().err


def test_a_service_account_is_one_of_a_pod_and_its_token_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(GenainetError, match="no pod"):
        ServiceAccountClient(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd96::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    client = ServiceAccountClient(tmp_path)
    assert client.server == "https://[fd96::1]:443"
    with pytest.raises(GenainetError, match="token"):
        client.headers()
    for token in ("one", "two"):
        (tmp_path / "token").write_text(token + "\n")
        assert client.headers() == {"authorization": f"Bearer {token}"}


def test_a_kind_with_the_name_of_another_is_told_with_its_group() -> None:
    told = {(r.group, r.kind): told_name(r) for r in KINDS}
    assert told["", "Service"] == "Service"
    assert told["serving.knative.dev", "Service"] == "Service.serving.knative.dev"
    assert told["networking.istio.io", "Gateway"] == "Gateway.networking.istio.io"
    assert told["crd.projectcalico.org", "NetworkPolicy"] == "NetworkPolicy"  # the verdicts hang on it too
