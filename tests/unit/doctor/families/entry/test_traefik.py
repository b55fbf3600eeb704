"""Traefik's routes: where they lead, what buffers and what ends a stream behind them, wherever it is set."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.families.entry.traefik.settings import block_scalars
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service, unchecked

MODEL = deployment("model", 'image: "vllm/vllm-openai:v0.9.2", ports: [{containerPort: 8000}]') + service(
    "model", "{selector: {app: model}, ports: [{name: http, port: 80, targetPort: 8000}]}"
)


def route(services: str, more: str = "", kind: str = "IngressRoute", group: str = "traefik.io") -> str:
    match = "HostSNI(`*`)" if kind.endswith("TCP") else "Host(`chat.test`)"
    return f"""
---
apiVersion: {group}/v1alpha1
kind: {kind}
metadata: {{name: edge, namespace: ml}}
spec:
  entryPoints: [websecure]
  routes: [{{match: "{match}", kind: Rule, services: [{services}]{more}}}]
"""


def crd(kind: str, name: str, spec: str, namespace: str = "ml") -> str:
    return f"""
---
apiVersion: traefik.io/v1alpha1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def traefik(*arguments: str, more: str = "") -> str:
    args = ", ".join(f'"{a}"' for a in arguments)
    return deployment("traefik", f'image: "docker.io/traefik:v3.5.0", args: [{args}]{more}', "edge")


INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: edge, namespace: ml, annotations: {NOTES}}
spec:
  ingressClassName: traefik
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: model, port: {number: 80}}}}]}}]
"""
TO_MODEL = "{name: model, port: 80}"


def wrong(text: str) -> list[tuple[str, str]]:
    found = findings(text, "traefik-route-backend", complete=True)
    return [(f.title, f.evidence[0].field) for f in found]


@pytest.mark.parametrize("kind", ["IngressRoute", "IngressRouteTCP"])
@pytest.mark.parametrize("group", ["traefik.io", "traefik.containo.us"])
@pytest.mark.parametrize(
    ("services", "field"),
    [
        (TO_MODEL, None),
        ("{name: model, port: http}", None),
        ("{name: api@internal, kind: TraefikService}", None),
        ("{name: model, port: 8000}", "spec.routes[0].services[0].port"),
        ("{name: model, port: grpc}", "spec.routes[0].services[0].port"),
        ("{name: modle, port: 80}", "spec.routes[0].services[0].name"),
        (f"{TO_MODEL}, {{name: canary, port: 80}}", "spec.routes[0].services[1].name"),
        ("{name: spread, kind: TraefikService}", "spec.routes[0].services[0].name"),
    ],
)
def test_a_route_leads_to_a_service_and_a_port_that_are_there(
    services: str, field: str | None, kind: str, group: str
) -> None:
    found = wrong(MODEL + route(services, kind=kind, group=group))
    assert [where for _, where in found] == ([field] if field else [])


def test_a_traefik_service_is_followed() -> None:
    spread = crd(
        "TraefikService", "spread", "{weighted: {services: [{name: model, port: 80}, {name: gone, port: 80}]}}"
    )
    found = findings(
        MODEL + route("{name: spread, kind: TraefikService}") + spread, "traefik-route-backend", complete=True
    )
    assert [(str(f.object), f.evidence[0].field) for f in found] == [
        ("TraefikService ml/spread", "spec.weighted.services[1].name")
    ]


def test_the_only_port_of_the_service_is_the_remedy() -> None:
    (found,) = findings(MODEL + route("{name: model, port: 8000}"), "traefik-route-backend")
    assert found.severity is Severity.ERROR
    assert found.remedy is not None
    assert "ingressroute.traefik.io/edge" in found.remedy.command
    assert '"path": "/spec/routes/0/services/0/port", "value": 80' in found.remedy.command


def test_what_manifests_leave_to_others_is_not_checked() -> None:
    text = MODEL + route("{name: web, port: 80}", ", middlewares: [{name: auth}]")
    assert findings(text, "traefik-route-backend") == []
    assert "Service ml/web is not here" in unchecked(text, "traefik-route-backend")
    assert "Middleware ml/auth is not here" in unchecked(text, "traefik-route-backend")
    assert wrong(text) != []


def test_a_middleware_of_another_namespace_is_named_with_it() -> None:
    auth = crd("Middleware", "auth", "{basicAuth: {secret: users}}", "edge")
    assert len(wrong(MODEL + auth + route(TO_MODEL, ", middlewares: [{name: auth}]"))) == 1
    assert wrong(MODEL + auth + route(TO_MODEL, ", middlewares: [{name: auth, namespace: edge}]")) == []
    assert wrong(MODEL + route(TO_MODEL, ", middlewares: [{name: auth@file}]")) == []


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), 1),
        (("--providers.kubernetescrd.allowCrossNamespace=false",), 1),
        (("--providers.kubernetescrd.allowCrossNamespace=true",), 0),
        (("--providers.kubernetesCRD.allowCrossNamespace",), 0),
    ],
)
def test_another_namespace_is_followed_only_where_traefik_may(arguments: tuple[str, ...], found: int) -> None:
    there = service("model", "{selector: {app: x}, ports: [{port: 80}]}", "other")
    text = MODEL + there + route("{name: model, namespace: other, port: 80}")
    assert len(wrong(text + traefik(*arguments))) == found


def test_without_a_traefik_nobody_knows_what_it_may_follow() -> None:
    there = service("model", "{selector: {app: x}, ports: [{port: 80}]}", "other")
    text = MODEL + there + route("{name: model, namespace: other, port: 80}")
    assert findings(text, "traefik-route-backend") == []
    assert "allowcrossnamespace" in unchecked(text, "traefik-route-backend")
    file = traefik("--configFile=/etc/traefik/traefik.yml")
    assert findings(text + file, "traefik-route-backend") == []


def test_an_external_name_needs_an_option_too() -> None:
    text = service("openai", "{type: ExternalName, externalName: api.openai.com}") + route("{name: openai, port: 443}")
    option = "--providers.kubernetescrd.allowExternalNameServices=true"
    assert [where for _, where in wrong(text + traefik())] == ["spec.routes[0].services[0].name"]
    assert wrong(text + traefik(option)) == []


BUFFERING = crd("Middleware", "limit", "{buffering: {maxRequestBodyBytes: 1000000}}")


def test_a_buffering_middleware_keeps_tokens_back() -> None:
    on_it = MODEL + route(TO_MODEL, ", middlewares: [{name: limit}]")
    (found,) = findings(on_it + BUFFERING, "ingress-buffering")
    assert [e.field for e in found.evidence] == ["spec.routes[0].middlewares[0]", "spec.buffering"]
    assert findings(on_it + crd("Middleware", "limit", "{headers: {frameDeny: true}}"), "ingress-buffering") == []
    assert findings(MODEL + route(TO_MODEL) + BUFFERING, "ingress-buffering") == []


def test_a_chain_and_an_ingresss_annotation_name_middlewares_too() -> None:
    chain = crd("Middleware", "all", "{chain: {middlewares: [{name: limit}]}}")
    assert (
        len(findings(MODEL + chain + BUFFERING + route(TO_MODEL, ", middlewares: [{name: all}]"), "ingress-buffering"))
        == 1
    )
    notes = '{"traefik.ingress.kubernetes.io/router.middlewares": "ml-limit@kubernetescrd"}'
    assert len(findings(MODEL + BUFFERING + INGRESS.replace("{NOTES}", notes), "ingress-buffering")) == 1
    assert findings(MODEL + BUFFERING + INGRESS.replace("{NOTES}", "{}"), "ingress-buffering") == []


def test_what_buffers_itself_in_a_circle_is_read_once_and_left() -> None:
    circle = crd("Middleware", "all", "{chain: {middlewares: [{name: all}]}}")
    assert findings(MODEL + circle + route(TO_MODEL, ", middlewares: [{name: all}]"), "ingress-buffering") == []


WRITE = "entryPoints.{}.transport.respondingTimeouts.writeTimeout={}"


def cut(text: str) -> list[tuple[str, str]]:
    found = findings(text, "ingress-stream-timeout")
    return [(f.title.rpartition("after ")[2], str(f.evidence[0].object)) for f in found]


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("--" + WRITE.format("websecure", "60s"), [("60 s", "Deployment edge/traefik")]),
        ("--" + WRITE.format("websecure", "90").lower(), [("90 s", "Deployment edge/traefik")]),
        ("--" + WRITE.format("websecure", "0"), []),
        ("--" + WRITE.format("websecure", "30m"), []),
        ("--" + WRITE.format("internal", "60s"), []),
        ("--entryPoints.websecure.transport.respondingTimeouts.idleTimeout=60s", []),
        ("--entryPoints.websecure.transport.respondingTimeouts.readTimeout=60s", []),
        ("--serversTransport.forwardingTimeouts.responseHeaderTimeout=20s", [("20 s", "Deployment edge/traefik")]),
    ],
)
def test_a_limit_of_the_command_line_ends_a_stream(argument: str, found: list[tuple[str, str]]) -> None:
    assert cut(MODEL + route(TO_MODEL) + traefik(argument)) == found


def test_a_variable_and_a_file_set_it_too() -> None:
    name = "TRAEFIK_ENTRYPOINTS_WEBSECURE_TRANSPORT_RESPONDINGTIMEOUTS_WRITETIMEOUT"
    variable = traefik(more=f', env: [{{name: {name}, value: "45s"}}]')
    assert cut(MODEL + route(TO_MODEL) + variable) == [("45 s", "Deployment edge/traefik")]
    file = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: edge}
data:
  traefik.yml: |
    entryPoints:
      web: {address: ":80"}
      websecure:
        address: ":443"
        transport:
          respondingTimeouts:
            writeTimeout: 50s  # too short
"""
    mounted = traefik().replace("spec: {containers", "spec: {volumes: [{name: v, configMap: {name: conf}}], containers")
    assert cut(MODEL + route(TO_MODEL) + mounted + file) == [("50 s", "ConfigMap edge/conf")]


VALUES = "ports: {websecure: {transport: {respondingTimeouts: {writeTimeout: 40s}}}}"
IN_LINES = "ports:\n      websecure:\n        transport:\n          respondingTimeouts:\n            writeTimeout: 40s"
CHARTS = {
    "HelmChartConfig kube-system/traefik": f"""
apiVersion: helm.cattle.io/v1
kind: HelmChartConfig
metadata: {{name: traefik, namespace: kube-system}}
spec:
  valuesContent: |-
    {IN_LINES}
""",
    "HelmRelease edge/traefik": f"""
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {{name: traefik, namespace: edge}}
spec: {{chart: {{spec: {{chart: traefik}}}}, values: {{{VALUES}}}}}
""",
    "Application argocd/edge": f"""
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {{name: edge, namespace: argocd}}
spec: {{sources: [{{chart: traefik, helm: {{valuesObject: {{{VALUES}}}}}}}]}}
""",
}


@pytest.mark.parametrize("name", CHARTS)
def test_the_values_of_its_chart_are_read(name: str) -> None:
    assert cut(MODEL + route(TO_MODEL) + "\n---" + CHARTS[name]) == [("40 s", name)]
    assert cut(MODEL + route(TO_MODEL) + "\n---" + CHARTS[name].replace("40s", "0s")) == []


def test_an_argument_among_the_values_is_read() -> None:
    release = CHARTS["HelmRelease edge/traefik"].replace(
        VALUES, f'additionalArguments: ["--{WRITE.format("websecure", "35s")}"]'
    )
    assert cut(MODEL + route(TO_MODEL) + "\n---" + release) == [("35 s", "HelmRelease edge/traefik")]


def test_a_transport_of_its_own_has_its_own_limit() -> None:
    own = MODEL + route("{name: model, port: 80, serversTransport: slow}")
    transport = crd("ServersTransport", "slow", "{forwardingTimeouts: {responseHeaderTimeout: 30s}}")
    found = findings(own + transport, "ingress-stream-timeout")
    assert [(str(f.evidence[0].object), f.evidence[0].field) for f in found] == [
        ("ServersTransport ml/slow", "spec.forwardingTimeouts.responseHeaderTimeout")
    ]
    assert found[0].remedy is not None
    assert "serverstransport.traefik.io/slow" in found[0].remedy.command
    assert cut(own + transport.replace("30s", "15m")) == []
    general = traefik("--serversTransport.forwardingTimeouts.responseHeaderTimeout=20s")
    assert cut(own + transport.replace("30s", "15m") + general) == []


def test_an_ingress_of_its_class_is_a_way_through_it() -> None:
    limited = traefik("--" + WRITE.format("websecure", "60s"))
    assert len(cut(MODEL + INGRESS.replace("{NOTES}", "{}") + limited)) == 1
    web_only = '{"traefik.ingress.kubernetes.io/router.entrypoints": "web"}'
    assert cut(MODEL + INGRESS.replace("{NOTES}", web_only) + limited) == []


def test_of_two_traefiks_none_is_taken_for_the_one_that_serves() -> None:
    text = MODEL + route(TO_MODEL) + traefik("--" + WRITE.format("websecure", "60s"))
    text += traefik().replace("namespace: edge", "namespace: inner")
    assert cut(text) == []
    assert "several Traefiks" in unchecked(text, "ingress-stream-timeout")


def test_a_model_behind_a_route_is_entered_from_outside() -> None:
    there = MODEL.replace("spec: {selector", "spec: {type: NodePort, selector")
    assert len(findings(there, "service-node-port")) == 1
    assert findings(there + route(TO_MODEL), "service-node-port") == []


def test_nested_values_are_read_line_by_line() -> None:
    document = "a:\n  b: 1 # one\n  c:\n    d: 'x'\n- e: 2\nf: \"y\"\n"
    assert dict(block_scalars(document)) == {"a.b": "1", "a.c.d": "x", "f": "y"}


READ = "--entryPoints.websecure.transport.respondingTimeouts.readTimeout={}"
SPEECH = MODEL.replace('v0.9.2"', 'v0.9.2", args: [--model, openai/whisper-large-v3]')


@pytest.mark.parametrize(
    ("model", "argument", "severity"),
    [
        (SPEECH, READ.format("10s"), [Severity.WARNING]),
        (SPEECH, READ.format("10s").lower(), [Severity.WARNING]),
        (MODEL, READ.format("10s"), [Severity.INFO]),
        (SPEECH, READ.format("60s"), []),
        (SPEECH, READ.format("0"), []),
        (SPEECH, READ.format("10s").replace("websecure", "internal"), []),
        (SPEECH, "--log.level=INFO", []),
    ],
)
def test_a_recording_has_to_come_in_within_the_time_for_a_request(
    model: str, argument: str, severity: list[Severity]
) -> None:
    found = findings(model + route(TO_MODEL) + traefik(argument), "proxy-body-size")
    assert [f.severity for f in found] == severity
    assert [str(f.evidence[0].object) for f in found] == ["Deployment edge/traefik"] * len(severity)
    assert cut(model + route(TO_MODEL) + traefik(argument)) == []


def test_which_of_two_traefiks_reads_a_request_is_not_known() -> None:
    text = SPEECH + route(TO_MODEL) + traefik(READ.format("10s"))
    text += traefik().replace("namespace: edge", "namespace: inner")
    assert findings(text, "proxy-body-size") == []
    assert "several Traefiks" in unchecked(text, "proxy-body-size")
