"""nginx as a pod's own proxy in front of model servers and their front ends: what its nginx.conf does to them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.gateway_streams import STREAM_S
from kubectl_genainet.doctor.families.entry.nginx.conf import duration, size
from kubectl_genainet.doctor.families.entry.nginx.proxies import NginxProxy, nginx_proxies
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import kubectl
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.predicates.backends import behind, takes_large_input
from kubectl_genainet.model.finding import Evidence, Remedy, Severity

DEFAULT_S = 60.0
DEFAULT_BYTES = 1 << 20
HTTP_1_1_SINCE = (1, 29, 7)
# Servers that leave buffering to the proxy; others answer a stream with X-Accel-Buffering: no (TGI, llama.cpp since 2026).
_LEAVES_IT = ("vLLM", "SGLang", "Ollama", "llm-d", "vLLM router", "SGLang router", "Dynamo frontend")
# Paths on which no tokens come.
_NO_TOKENS = re.compile(
    r"/(\w+/)*(health|healthz|livez|readyz|ready|live|ping|metrics|version|docs|models|tags|static|assets)\b"
)
_WEB_SOCKET = re.compile(r"(^|[^a-z0-9])(streamlit|open-?webui)([^a-z0-9]|$)")  # an image's name


def _before_servers(cluster: Cluster) -> dict[tuple[str, str], list[NginxProxy]]:
    """The places where tokens of a model server (or a router) pass a proxy, by configuration and Service."""
    places: dict[tuple[str, str], list[NginxProxy]] = defaultdict(list)
    for place in nginx_proxies(cluster):
        roles = {cluster.role(w) for w in cluster.workloads_of(place.service)}
        if roles & {Role.MODEL_SERVER, Role.ROUTER} and not _NO_TOKENS.search(place.proxy.location):
            places[(str(place.config.ref), str(place.service.ref))].append(place)
    return places


def _where(place: NginxProxy, field: str, value: str | None, effect: str) -> tuple[Evidence, ...]:
    key = f"data[{place.key}]"
    setting = f"{field} {value}" if value is not None else f"{field} is not set"
    statement = f"location {place.proxy.location} passes to {place.proxy.target}; {setting}: {effect}"
    return (seen(place.config.ref, key, value, statement), seen(place.service.ref, "metadata.name", None, "its target"))


def _remedy(place: NginxProxy, line: str) -> Remedy:
    return Remedy(
        f"Set {line} in location {place.proxy.location}, and restart {place.workload.ref}.",
        command=kubectl(place.config.ref, "edit"),
    )


def buffered(cluster: Cluster) -> Iterator[Problem]:
    """The proxies that keep a stream of tokens back. One place that does not shows that it is known where tokens pass."""
    for places in _before_servers(cluster).values():
        set_to = [(p, p.proxy.setting("proxy_buffering")) for p in places]
        place, value = set_to[0]
        stacks = {s.name for w in cluster.workloads_of(place.service) if (s := cluster.stack(w))}
        if any(v == "off" for _, v in set_to) or not cluster.streams(place.service):
            continue
        if any(p.proxy.header("X-Accel-Buffering") for p in places) or not (place.whole or value == "on"):
            continue
        yield Problem(
            f"it buffers the tokens of {place.service.ref}",
            place.config.ref,
            _where(place, "proxy_buffering", value, "on is the default" if value is None else "responses are buffered"),
            _remedy(place, "proxy_buffering off;"),
            severity=None if stacks & set(_LEAVES_IT) else Severity.INFO,
            rests_on=(place.workload.ref, *behind(cluster, place.service)),
        )


def cut_short(cluster: Cluster) -> Iterator[Problem]:
    """The proxies that end a stream after a minute without a token."""
    for places in _before_servers(cluster).values():
        limits = [(p, *_read_timeout(p)) for p in places]
        if any(limit >= STREAM_S for _, _, limit in limits):
            continue
        place, value, limit = limits[0]
        if not cluster.streams(place.service) or not (place.whole or value is not None):
            continue
        mild = limit > DEFAULT_S or not cluster.waits_for_a_model(place.service)
        effect = f"{limit:.0f} s between two reads" if value else "60 s is the default"
        yield Problem(
            f"a stream of {place.service.ref} is cut after {limit:.0f} s without a token",
            place.config.ref,
            _where(place, "proxy_read_timeout", value, effect),
            _remedy(place, "proxy_read_timeout 3600s;"),
            severity=Severity.INFO if mild else None,
            rests_on=(place.workload.ref, *behind(cluster, place.service)),
        )


def _read_timeout(place: NginxProxy) -> tuple[str | None, float]:
    value = place.proxy.setting("proxy_read_timeout")
    limit = duration(value) if value is not None else DEFAULT_S
    return value, float(STREAM_S) if limit is None else limit


def refused(cluster: Cluster) -> Iterator[Problem]:
    """The proxies that refuse large requests."""
    for places in _before_servers(cluster).values():
        values = [p.proxy.setting("client_max_body_size") for p in places]
        limits = [DEFAULT_BYTES if v is None else size(v) for v in values]
        place, value, limit = places[0], values[0], limits[0]
        if any(n is None or n == 0 or n > DEFAULT_BYTES for n in limits) or not (place.whole or value is not None):
            continue
        yield Problem(
            f"requests to {place.service.ref} of more than {(limit or 0) / DEFAULT_BYTES:g} MiB are refused",
            place.config.ref,
            _where(
                place, "client_max_body_size", value, "1 MiB is the default" if value is None else "more is refused"
            ),
            _remedy(place, "client_max_body_size 100m;"),
            severity=None if takes_large_input(cluster, place.service) else Severity.INFO,
            rests_on=(place.workload.ref, *behind(cluster, place.service)),
        )


@check(Area.INGRESS, Severity.ERROR)
def proxy_upgrade(cluster: Cluster) -> Problems:
    """A proxy does not pass on the WebSocket that a front end lives on.

    Looks at the nginx.conf of a pod's own proxy that passes requests on to Streamlit or Open WebUI: at proxy_set_header
    Upgrade, and at proxy_http_version, 1.0 by default before nginx 1.29.7. One place in the file that passes it on is enough.

    Why: both send all that the page shows over a WebSocket, which begins with a request to upgrade the connection; nginx
    removes it unless told otherwise, and HTTP/1.0 has none. An error: the page loads and never shows anything.

    Source: https://nginx.org/en/docs/http/websocket.html, https://docs.streamlit.io/knowledge-base/deploy/remote-start,
    https://docs.openwebui.com/troubleshooting/connection-error
    """
    places: dict[tuple[str, str], list[NginxProxy]] = defaultdict(list)
    for place in nginx_proxies(cluster):
        if any(_lives_on_it(c) for w in cluster.workloads_of(place.service) for c in w.containers):
            places[(str(place.config.ref), str(place.service.ref))].append(place)
    for same in places.values():
        reasons = [_not_upgraded(p) for p in same]
        if all(reasons) and same[0].whole:
            place, (directive, value, effect) = same[0], reasons[0] or ("", None, "")
            yield Problem(
                f"the WebSocket of {place.service.ref} is not passed on",
                place.config.ref,
                _where(place, directive, value, effect),
                _remedy(
                    place,
                    'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
                ),
                rests_on=(place.workload.ref, *behind(cluster, place.service)),
            )


def _lives_on_it(container: ContainerSpec) -> bool:
    """Whether a container runs a front end that needs its WebSocket; Open WebUI can be told to do without."""
    told = _WEB_SOCKET.search(container.image.rpartition("/")[2].lower()) or "streamlit run" in " ".join(
        container.words
    )
    return bool(told) and container.env.get("ENABLE_WEBSOCKET_SUPPORT", "").lower() != "false"


def _not_upgraded(place: NginxProxy) -> tuple[str, str | None, str] | None:
    """The directive that stands in the way, its value and what follows; None where nothing does, as far as is known."""
    version = place.proxy.setting("proxy_http_version")
    if place.proxy.header("Upgrade") is None:
        return "proxy_set_header Upgrade", None, "the header is removed"
    if version == "1.0" or (version is None and () < place.version < HTTP_1_1_SINCE):
        return "proxy_http_version", version, "HTTP/1.0 has no upgrade"
    return None
