"""A pod's own nginx: what its configuration says is read as nginx reads it, and only what is certain is told."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_genainet.doctor.families.entry.nginx.conf import duration, parse, proxies, size, upstreams
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import findings, unchecked

SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: vllm, namespace: ml}
spec:
  selector: {matchLabels: {app: vllm}}
  template:
    metadata: {labels: {app: vllm}}
    spec:
      containers:
      - {name: m, image: "vllm/vllm-openai:v0.9.2", args: [--model, MODEL], ports: [{containerPort: 8000}],
         resources: {limits: {nvidia.com/gpu: 1}}}
---
apiVersion: v1
kind: Service
metadata: {name: vllm, namespace: ml}
spec: {selector: {app: vllm}, ports: [{port: 8000}]}
"""
SOUND = "proxy_buffering off; proxy_read_timeout 1h; client_max_body_size 50m;"


def edge(conf: str, *, image: str = "nginx:1.27", mount: str = "/etc/nginx/conf.d", key: str = "default.conf") -> str:
    return f"""
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: edge, namespace: ml}}
data:
  {key}: |
{textwrap.indent(conf, "    ")}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: edge, namespace: ml}}
spec:
  selector: {{matchLabels: {{app: edge}}}}
  template:
    metadata: {{labels: {{app: edge}}}}
    spec:
      containers:
      - {{name: nginx, image: "{image}", volumeMounts: [{{name: conf, mountPath: {mount}}}]}}
      volumes: [{{name: conf, configMap: {{name: edge}}}}]
"""


def told(conf: str, check: str, model: str = "llama", **place: str) -> list[tuple[str, Severity]]:
    found = findings(SERVER.replace("MODEL", model) + edge(conf, **place), check)
    return [(f.title, f.severity) for f in found if f.object is not None and f.object.kind == "ConfigMap"]


def location(settings: str, target: str = "http://vllm:8000") -> str:
    return f"server {{ listen 80; location / {{ proxy_pass {target}; {settings} }} }}"


BUFFERED = ("it buffers the tokens of Service ml/vllm", Severity.WARNING)


@pytest.mark.parametrize(
    ("conf", "found"),
    [
        (location("proxy_read_timeout 1h;"), [BUFFERED]),
        (location("proxy_buffering on;"), [BUFFERED]),
        (location(SOUND), []),
        ("proxy_buffering off;\n" + location(""), []),
        (
            "upstream models { server vllm.ml.svc:8000 max_fails=3; keepalive 8; }" + location("", "http://models"),
            [BUFFERED],
        ),
        ("server { set $up http://vllm.ml.svc.cluster.local:8000; location / { proxy_pass $up; } }", [BUFFERED]),
        ("server { location / { proxy_pass http://$host; } }", []),
        ("server { location /health { proxy_pass http://vllm:8000; } }", []),
        (location("") + "server { location /v1/chat { proxy_pass http://vllm:8000; proxy_buffering off; } }", []),
        ("server { include /etc/nginx/proxy.conf; location / { proxy_pass http://vllm:8000; } }", []),
        ("server { location / { if ($arg_x) { proxy_pass http://vllm:8000; } } }", []),
        (location("", "http://somebody-else:8000"), []),
        ("server { location / { proxy_pass http://vllm:8000;", []),
    ],
)
def test_tokens_are_buffered_where_that_is_in_force(conf: str, found: list[tuple[str, Severity]]) -> None:
    assert told(conf, "ingress-buffering") == found


def test_an_image_that_may_have_its_own_limits_is_judged_by_what_is_written() -> None:
    assert told(location(""), "ingress-buffering", image="acme/front:3") == []
    assert told(location("proxy_buffering on;"), "ingress-buffering", image="acme/front:3") == [BUFFERED]


def test_a_file_that_nginx_does_not_include_is_not_read() -> None:
    assert told(location("proxy_buffering on;"), "ingress-buffering", mount="/etc/nginx/snippets") == []


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("", [("a stream of Service ml/vllm is cut after 60 s without a token", Severity.WARNING)]),
        (
            "proxy_read_timeout 30s;",
            [("a stream of Service ml/vllm is cut after 30 s without a token", Severity.WARNING)],
        ),
        (
            "proxy_read_timeout 120;",
            [("a stream of Service ml/vllm is cut after 120 s without a token", Severity.INFO)],
        ),
        ("proxy_read_timeout 10m;", []),
        ("proxy_read_timeout $long;", []),
    ],
)
def test_a_stream_is_cut_by_the_time_in_force(settings: str, found: list[tuple[str, Severity]]) -> None:
    assert told(location(settings), "ingress-stream-timeout") == found


def test_a_proxy_beside_ingresses_that_are_not_here_does_not_count_as_all() -> None:
    assert "Ingress" in unchecked(SERVER + edge(location(SOUND)), "ingress-stream-timeout")


@pytest.mark.parametrize(
    ("settings", "model", "severity"),
    [
        ("", "llama", [Severity.INFO]),
        ("", "openai/whisper-large-v3", [Severity.WARNING]),
        ("client_max_body_size 512k;", "Qwen/Qwen2.5-VL-7B-Instruct", [Severity.WARNING]),
        ("client_max_body_size 25m;", "openai/whisper-large-v3", []),
        ("client_max_body_size 0;", "openai/whisper-large-v3", []),
    ],
)
def test_large_requests_are_refused_where_the_model_gets_such(
    settings: str, model: str, severity: list[Severity]
) -> None:
    assert [s for _, s in told(location(settings), "proxy-body-size", model)] == severity


FRONT = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ui, namespace: ml}
spec:
  selector: {matchLabels: {app: ui}}
  template:
    metadata: {labels: {app: ui}}
    spec: {containers: [{name: ui, image: acme/ui, command: [streamlit, run, app.py], ports: [{containerPort: 8501}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: ui, namespace: ml}
spec: {selector: {app: ui}, ports: [{port: 8501}]}
"""
UPGRADE = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


@pytest.mark.parametrize(
    ("settings", "image", "found"),
    [
        ("proxy_set_header Host $host;", "nginx", 1),
        (f"proxy_http_version 1.1; {UPGRADE}", "nginx:1.27", 0),
        (UPGRADE, "nginx:1.27", 1),
        (UPGRADE, "nginx:1.31.0", 0),
        (UPGRADE, "nginx:latest", 0),
        (f"proxy_http_version 1.0; {UPGRADE}", "nginx:latest", 1),
    ],
)
def test_a_web_socket_is_passed_on_as_nginx_passes_it(settings: str, image: str, found: int) -> None:
    conf = location(settings, "http://ui:8501")
    assert len(findings(SERVER + FRONT + edge(conf, image=image), "proxy-upgrade")) == found


def test_a_block_that_sets_headers_inherits_none() -> None:
    conf = f"server {{ {UPGRADE} location / {{ proxy_pass http://ui:8501; proxy_http_version 1.1; HEADER }} }}"
    assert findings(FRONT + edge(conf.replace("HEADER", "")), "proxy-upgrade") == []
    assert len(findings(FRONT + edge(conf.replace("HEADER", "proxy_set_header Host $host;")), "proxy-upgrade")) == 1


def test_the_language_is_read_as_nginx_reads_it() -> None:
    read = parse("""
      # a comment; with { signs }
      upstream a { server one:1 weight=2; server "two:2"; }
      map $http_upgrade $c { default upgrade; '' close; }
      server { location ~ ^/v1/(chat|x)$ { proxy_pass http://a/${path}?q=#1; } return 301 https://$host\\ x; }
    """)
    assert read is not None
    assert upstreams(read) == {"a": ("one:1", "two:2")}
    assert [(p.location, p.target) for p in proxies(read)] == [("~ ^/v1/(chat|x)$", "http://a/${path}?q=#1")]


@pytest.mark.parametrize("text", ["a {", "}", "a", "; b;", "content_by_lua_block { local x = {} }", 'a "b;'])
def test_what_is_no_configuration_is_not_read(text: str) -> None:
    assert parse(text) is None


@given(st.text(alphabet="ab{};\"'#\\ \n$", max_size=60))
def test_any_text_has_an_end(text: str) -> None:
    read = parse(text)
    assert read is None or read.name == ""


@pytest.mark.parametrize(
    ("value", "expected"), [("60", 60), ("1h 30m", 5400), ("500ms", 0.5), ("5M", 12960000), ("$x", None), ("", None)]
)
def test_a_time(value: str, expected: float | None) -> None:
    assert duration(value) == expected


@pytest.mark.parametrize(("value", "expected"), [("1m", 1 << 20), ("0", 0), ("2G", 2 << 30), ("1 m", None)])
def test_a_size(value: str, expected: int | None) -> None:
    assert size(value) == expected
