"""Destinations by name: what the cluster's own DNS answers is a Service or a pod, never the internet."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.policy.flows.targets import flows_between
from tests.unit.policy.policy_cluster import Raw, namespace, pod, snapshot

CLIENT = pod("shop/cart", "10.7.0.2")
STORE = pod("vec/store-0", "10.7.0.3", labels={"app": "store"}, ports=(("api", "TCP", 6333),))


def service(name: str, selector: Raw | None, *ports: tuple[int, int], **spec: Any) -> Raw:
    where, _, short = name.partition("/")
    listed = [{"port": p, "targetPort": t} for p, t in ports]
    full = {"ports": listed, **({"selector": selector} if selector else {}), **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": short, "namespace": where}, "spec": full}


OBJECTS = (namespace("shop"), namespace("vec"), CLIENT, STORE, service("vec/store", {"app": "store"}, (80, 6333)))


def ends(*objects: Raw, target: str) -> list[tuple[str, int, str]]:
    """Where flows from the client to a target arrive: the end, its port, and the Service before it."""
    name = target if "/" not in target else parse_target(target)
    found = flows_between(snapshot(*objects), parse_target("pod/cart"), name, namespace="shop", protocol="")
    return [(str(sent.flow.destination), sent.flow.port, sent.service) for sent in found]


@pytest.mark.parametrize(
    "name",
    ["store.vec.svc.cluster.local:80", "store.vec.svc.cluster.local.:80", "store.vec.svc:80", "Store.vec:80"],
)
def test_a_name_of_a_service_is_its_backends(name: str) -> None:
    assert ends(*OBJECTS, target=name) == [("vec/store-0", 6333, "vec/store")]


def test_a_name_of_a_pod_behind_a_service_is_that_pod() -> None:
    assert ends(*OBJECTS, target="store-0.store.vec.svc.cluster.local:6333") == [("vec/store-0", 6333, "")]
    assert ends(*OBJECTS, target="10-7-0-3.vec.pod.cluster.local:6333") == [("10.7.0.3", 6333, "")]


def test_a_name_that_no_service_has_is_the_internets() -> None:
    assert ends(*OBJECTS, target="store.ai:443") == [("store.ai", 443, "")]
    with pytest.raises(InputError, match="no Service 'stor' in namespace vec"):
        ends(*OBJECTS, target="stor.vec.svc.cluster.local:80")
    with pytest.raises(InputError, match="is no name that the cluster's DNS answers"):
        ends(*OBJECTS, target="a.b.c.d.svc.cluster.local:80")


def test_what_is_in_another_namespace_is_said() -> None:
    with pytest.raises(InputError) as caught:
        ends(*OBJECTS, target="svc/store:80")
    assert caught.value.hint == "Did you mean svc/vec/store, or -n vec?"


def test_an_external_name_is_an_alias() -> None:
    outside = service("shop/llm", None, (443, 443), type="ExternalName", externalName="api.example.com")
    inside = service("shop/vec", None, (80, 80), type="ExternalName", externalName="store.vec.svc.cluster.local")
    assert ends(*OBJECTS, outside, target="svc/llm") == [("api.example.com", 443, "shop/llm")]
    assert ends(*OBJECTS, outside, target="svc/llm:8443") == [("api.example.com", 8443, "shop/llm")]
    assert ends(*OBJECTS, inside, target="svc/vec") == [("vec/store-0", 6333, "vec/store")]
    turning = service("shop/vec", None, (80, 80), type="ExternalName", externalName="vec.shop.svc.cluster.local")
    with pytest.raises(InputError, match="an alias of itself"):
        ends(*OBJECTS, turning, target="svc/vec")
    portless = service("shop/llm", None, type="ExternalName", externalName="api.example.com")
    with pytest.raises(InputError, match="needs a port"):
        ends(*OBJECTS, portless, target="svc/llm")


def test_a_service_without_a_selector_has_its_endpoints() -> None:
    legacy = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "shop"},
        "subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 5432}]}],
    }
    assert ends(*OBJECTS, service("shop/db", None, (5432, 5432)), legacy, target="svc/db") == [
        ("192.0.2.9", 5432, "shop/db")
    ]
    with pytest.raises(InputError, match="has no ready backend"):
        ends(*OBJECTS, service("shop/db", None, (5432, 5432)), target="svc/db")


def test_slices_of_one_service_leave_the_others_to_their_selectors() -> None:
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "endpoints": [{"addresses": ["192.0.2.9"]}],
        "ports": [{"port": 5432, "name": ""}],
    }
    db = service("shop/db", None, (5432, 5432))
    assert ends(*OBJECTS, db, piece, target="svc/db") == [("192.0.2.9", 5432, "shop/db")]
    assert ends(*OBJECTS, db, piece, target="store.vec:80") == [("vec/store-0", 6333, "vec/store")]
