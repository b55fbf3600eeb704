"""Targets, as users type them."""

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.target import Target, TargetKind, not_found, parse_target


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
