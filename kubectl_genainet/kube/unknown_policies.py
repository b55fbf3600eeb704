"""Kinds that a server offers and that are policies by their names, though no entry names them: they are read too, so that what
they may stop is not taken for what passes.

One request asks for all kinds at once (Kubernetes 1.27 and later; API concepts, "Aggregated discovery"). Older servers answer it
in another form, of which nothing is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import decoded_answer
from kubectl_genainet.kube.resources import KINDS, Resource, Served
from kubectl_genainet.policy.left_out.other_kinds import names_an_unknown_policy

_AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)
_MOST = 50  # kinds


class _Kind(msgspec.Struct, frozen=True):
    kind: str = ""


class _OfferedResource(msgspec.Struct, frozen=True, rename="camel"):
    resource: str = ""
    response_kind: _Kind = _Kind()
    scope: str = ""
    verbs: tuple[str, ...] = ()


class _OfferedVersion(msgspec.Struct, frozen=True):
    version: str = ""
    resources: tuple[_OfferedResource, ...] = ()


class _GroupName(msgspec.Struct, frozen=True):
    name: str = ""


class _OfferedGroup(msgspec.Struct, frozen=True):
    metadata: _GroupName = _GroupName()
    versions: tuple[_OfferedVersion, ...] = ()


class _Offered(msgspec.Struct, frozen=True):
    items: tuple[_OfferedGroup, ...] = ()


def unknown_policies(client: KubeClient) -> list[Served]:
    """Such kinds, each in the version that the server prefers; none where it does not tell."""
    doing = "ask which kinds there are"
    try:
        text = client.request("GET", "/apis", accept=f"{_AGGREGATED},application/json", doing=doing)
        offered: _Offered = decoded_answer(text, _Offered, doing)
    except GenainetError:
        return []
    known = {(kind.group, kind.kind) for kind in KINDS}
    found = {(s.resource.group, s.resource.kind): s for g in offered.items for s in reversed(tuple(_policies(g)))}
    return [served for key, served in found.items() if key not in known][:_MOST]


def _policies(group: _OfferedGroup) -> Iterator[Served]:
    """The kinds of policies in a group's versions, the preferred one first."""
    name = group.metadata.name
    for version in group.versions:
        for offered in version.resources:
            kind = offered.response_kind.kind
            if "list" in offered.verbs and names_an_unknown_policy(name, kind):
                namespaced = offered.scope == "Namespaced"
                yield Served(Resource(kind, offered.resource, name, (), namespaced, optional=True), version.version)
