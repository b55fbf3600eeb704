"""Targets, as users type them."""

from collections.abc import Callable

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.target import Target, TargetKind, not_found, parse_target, pod_named, service_named
from kubectl_genainet.policy.flows.targets import pods_named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("svc/my-llama-svc", Target(TargetKind.SERVICE, "Service", "my-llama-svc")),
        ("service/my-llama-svc:80", Target(TargetKind.SERVICE, "Service", "my-llama-svc", 80)),
        ("svc/prod/my-llama-svc:http", Target(TargetKind.SERVICE, "Service", "my-llama-svc", "http", "prod")),
        ("pod/qdrant-0", Target(TargetKind.POD, "Pod", "qdrant-0")),
        ("sts/qdrant", Target(TargetKind.WORKLOAD, "StatefulSet", "qdrant")),
        ("10.0.0.1", Target(TargetKind.ADDRESS, "", "10.0.0.1")),
        ("10.0.0.1:80", Target(TargetKind.ADDRESS, "", "10.0.0.1", 80)),
        ("2001:DB8::1", Target(TargetKind.ADDRESS, "", "2001:db8::1")),
        ("[2001:db8::1]:443", Target(TargetKind.ADDRESS, "", "2001:db8::1", 443)),
    ],
)
def test_target_forms(text: str, expected: Target) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text", ["", "my-llama-svc", "svc/", "svc/UPPER", "svc/a:0", "svc/a:70000", "10.0.0.1:x_y", "ns/x"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_target(text)


def test_an_unknown_name_lists_near_matches() -> None:
    error = not_found("Service", "my-lama-svc", ["my-llama-svc", "rag-app"], namespace="default")
    assert error.message == "no Service 'my-lama-svc' in namespace default"
    assert error.hint == "Did you mean my-llama-svc?"


@pytest.mark.parametrize("text", ["10.0.0.999", "10.0.0", "1.2.3.4.5:80"])
def test_what_looks_like_an_address_is_not_taken_for_a_name(text: str) -> None:
    with pytest.raises(InputError, match="is not an IP address"):
        parse_target(text)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (lambda s: pod_named(s, "default", "w"), "Did you mean pod/web/w, or -n web?"),
        (lambda s: pod_named(s, "default", "both"), "Did you mean pod/ai/both or pod/web/both?"),
        (lambda s: service_named(s, "default", "llm"), "Did you mean svc/ai/llm, or -n ai?"),
        (lambda s: pods_named(s, parse_target("sts/db"), "default"), "Did you mean sts/ai/db, or -n ai?"),
    ],
)
def test_what_another_namespace_has_is_hinted_at_as_it_can_be_typed(
    asked: Callable[[ClusterSnapshot], object], hint: str
) -> None:
    names = {"Pod": ("web/w", "web/both", "ai/both"), "Service": ("ai/llm",), "StatefulSet": ("ai/db",)}
    versions = {"StatefulSet": "apps/v1"}
    objects = [
        KubeObject(
            {
                "apiVersion": versions.get(kind, "v1"),
                "kind": kind,
                "metadata": dict(zip(("namespace", "name"), name.split("/"), strict=True)),
                "spec": {},
            }
        )
        for kind, of_kind in names.items()
        for name in of_kind
    ]
    with pytest.raises(InputError) as caught:
        asked(ClusterSnapshot(tuple(objects)))
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("web/w", "Did you mean pod/web/w, svc/web/w or deploy/web/w (KIND/NAMESPACE/NAME)?"),
        ("web/w:80", "Did you mean pod/web/w:80, svc/web/w:80 or deploy/web/w:80 (KIND/NAMESPACE/NAME)?"),
    ],
)
def test_a_namespace_in_the_place_of_a_kind_is_told_with_the_forms_that_there_are(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_target(text)
    assert caught.value.hint == hint
