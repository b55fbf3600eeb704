"""What `drops` looks at: of a Service every port of its cluster IPs, since who calls one that it does not have calls it too."""

from __future__ import annotations

import pytest

from kubectl_genainet.context.scope import scope_of
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.wire import FilterEntry
from tests.unit.drops.droprows import LLAMA, UI, VIP, snapshot, tcp

WRONG_PORT = tcp(UI, 40000, VIP, 8081)
BACKEND = tcp(UI, 40000, LLAMA, 8080)


@pytest.mark.parametrize("target", ["svc/my-llama-svc", VIP, None])
def test_a_port_that_the_service_does_not_have_is_the_services_traffic(target: str | None) -> None:
    scope = scope_of(parse_target(target) if target else None, "default", snapshot())
    assert scope.concerns(WRONG_PORT) and scope.concerns(WRONG_PORT.reversed) and scope.concerns(BACKEND)
    assert FilterEntry(VIP) in scope.filters
    assert scope.pods == {LLAMA}  # whose own redirections are looked at, as before


@pytest.mark.parametrize("target", ["svc/my-llama-svc:80", "svc/my-llama-svc:http", f"{VIP}:80", "pod/my-llama"])
def test_a_port_that_was_asked_for_and_a_pod_behind_it_leave_the_others_out(target: str) -> None:
    scope = scope_of(parse_target(target), "default", snapshot())
    assert scope.concerns(tcp(UI, 40000, VIP, 80)) and scope.concerns(BACKEND)
    assert not scope.concerns(WRONG_PORT) and FilterEntry(VIP) not in scope.filters


def test_another_port_of_a_backend_is_not_the_services() -> None:
    scope = scope_of(parse_target("svc/my-llama-svc"), "default", snapshot())
    assert not scope.concerns(tcp(UI, 40000, LLAMA, 9090))
