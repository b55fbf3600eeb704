"""Timeouts that cut a stream are found wherever they stand, and only where they are in force."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import findings, unchecked

MODEL = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: model, namespace: shop}
spec:
  template:
    metadata: {labels: {app: model}}
    spec: {containers: [{name: m, image: "vllm/vllm-openai:v0.9.2", ports: [{containerPort: 8000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: model, namespace: shop ANNOTATIONS}
spec: {type: TYPE, selector: {app: model}, ports: [{name: http, port: 80, targetPort: 8000}]}
"""
PREFIX = "service.beta.kubernetes.io/aws-load-balancer-"


def model(kind: str = "ClusterIP", **notes: str) -> str:
    shown = ", annotations: {" + ", ".join(f'"{k}": "{v}"' for k, v in notes.items()) + "}" if notes else ""
    return MODEL.replace(" ANNOTATIONS", shown).replace("TYPE", kind)


def ingress(cls: str, name: str = "edge", **notes: str) -> str:
    shown = ", ".join(f'"{k}": "{v}"' for k, v in notes.items())
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: shop, annotations: {{{shown}}}}}
spec:
  ingressClassName: {cls}
  rules:
  - host: {name}.test
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: model, port: {{number: 80}}}}}}}}]}}
"""


def classes(name: str, controller: str, parameters: str = "") -> str:
    more = (
        f", parameters: {{apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: {parameters}}}" if parameters else ""
    )
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: {name}}}
spec: {{controller: {controller}{more}}}
"""


def cut(text: str) -> list[str]:
    return [
        f"{f.title.rpartition('after ')[2]}: {f.evidence[0].object}" for f in findings(text, "ingress-stream-timeout")
    ]


NGINX = "nginx.ingress.kubernetes.io/"
ALB = "alb.ingress.kubernetes.io/"


@pytest.mark.parametrize(("value", "found"), [("1800", []), ("90", ["90 s"]), ("1800s", ["60 s"]), ("30m", ["60 s"])])
def test_ingress_nginx_takes_seconds_without_a_unit(value: str, found: list[str]) -> None:
    text = model() + ingress("nginx", **{NGINX + "proxy-read-timeout": value})
    assert [c.partition(" without")[0] for c in cut(text)] == found


def test_the_config_map_of_ingress_nginx_is_the_one_its_controller_names() -> None:
    controller = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge-ingress-nginx-controller, namespace: edge}
spec:
  template:
    spec: {containers: [{name: c, image: "ingress-nginx/controller:v1", args: ["--configmap=$(POD_NAMESPACE)/edge-conf"]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: edge-conf, namespace: edge}
data: {proxy-read-timeout: "900"}
"""
    assert cut(model() + ingress("nginx")) != []
    assert cut(model() + ingress("nginx") + controller) == []


def test_an_albs_timeout_may_stand_with_another_ingress_of_its_group() -> None:
    group = {ALB + "group.name": "all", ALB + "target-type": "ip"}
    longer = {ALB + "load-balancer-attributes": "idle_timeout.timeout_seconds=900"}
    assert len(cut(model() + ingress("alb", **group))) == 1
    assert cut(model() + ingress("alb", **group) + ingress("alb", "other", **group, **longer)) == []


def test_the_parameters_of_the_class_go_before_annotations() -> None:
    params = """
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: IngressClassParams
metadata: {name: p}
spec: {targetType: ip, loadBalancerAttributes: [{key: idle_timeout.timeout_seconds, value: "SECONDS"}]}
"""
    text = model() + ingress("alb") + classes("alb", "ingress.k8s.aws/alb", "p")
    assert cut(text) == []  # the parameters are not here: not checked
    assert cut(text + params.replace("SECONDS", "900")) == []
    assert cut(text + params.replace("SECONDS", "100")) == ["100 s without a token: IngressClassParams p"]
    assert findings(text + params, "alb-target-type") == []


@pytest.mark.parametrize("key", ["haproxy-ingress.github.io/timeout-server", "haproxy.org/timeout-server"])
def test_each_haproxy_controller_has_its_own_annotation(key: str) -> None:
    controller = f"{key.partition('/')[0]}/" + ("controller" if "github" in key else "ingress-controller")
    text = model() + classes("ha", controller)
    assert cut(text + ingress("ha", **{key: "15m"})) == []
    assert len(cut(text + ingress("ha"))) == 1


def test_f5_nginx_buffers_unless_told_otherwise() -> None:
    text = model() + classes("f5", "nginx.org/ingress-controller")
    assert len(findings(text + ingress("f5"), "ingress-buffering")) == 1
    assert findings(text + ingress("f5", **{"nginx.org/proxy-buffering": "False"}), "ingress-buffering") == []


def virtual_server(upstream: str, routes: str = "routes: [{path: /, action: {pass: llm}}]") -> str:
    kind = "VirtualServerRoute" if routes.startswith("subroutes") else "VirtualServer"
    return f"""
---
apiVersion: k8s.nginx.org/v1
kind: {kind}
metadata: {{name: edge, namespace: shop}}
spec:
  host: chat.test
  upstreams: [{{name: llm, service: model, port: 80{upstream}}}]
  {routes}
"""


@pytest.mark.parametrize(
    ("upstream", "limit"),
    [
        ("", ["60 s"]),
        (", read-timeout: 90s", ["90 s"]),
        (", read-timeout: 1h", []),
        (", send-timeout: 1h, connect-timeout: 1h", ["60 s"]),
    ],
)
def test_a_virtual_servers_upstream_has_its_own_timeout(upstream: str, limit: list[str]) -> None:
    assert [c.partition(" without")[0] for c in cut(model() + virtual_server(upstream))] == limit


@pytest.mark.parametrize(
    ("upstream", "found"),
    [("", 1), (", buffering: true", 1), (", buffering: false", 0), (", type: grpc", 0)],
)
def test_a_virtual_servers_upstream_buffers_unless_told_otherwise(upstream: str, found: int) -> None:
    assert len(findings(model() + virtual_server(upstream), "ingress-buffering")) == found


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        ("routes: [{path: /, action: {proxy: {upstream: llm, rewritePath: /v1}}}]", 1),
        ("routes: [{path: /, splits: [{weight: 90, action: {pass: llm}}, {weight: 10, action: {pass: other}}]}]", 1),
        ("routes: [{path: /, matches: [{conditions: [], action: {pass: llm}}], action: {return: {body: a}}}]", 1),
        ("routes: [{path: /, action: {redirect: {url: 'https://a.test'}}}]", 0),
        ("subroutes: [{path: /chat, action: {pass: llm}}]", 1),
    ],
)
def test_an_upstream_counts_where_requests_are_passed_to_it(routes: str, found: int) -> None:
    assert len(cut(model() + virtual_server("", routes))) == found


def test_a_virtual_server_leads_to_another_namespace_and_falls_back_on_the_config_map() -> None:
    config = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: nginx-config, namespace: edge}
data: {proxy-buffering: "False", proxy-read-timeout: SECONDS}
"""
    there = (
        virtual_server("")
        .replace("namespace: shop", "namespace: edge")
        .replace("service: model", "service: shop/model")
    )
    assert cut(model() + there) == ["60 s without a token: VirtualServer edge/edge"]
    assert cut(model() + there + config.replace("SECONDS", "100s")) == [
        "100 s without a token: ConfigMap edge/nginx-config"
    ]
    assert cut(model() + there + config.replace("SECONDS", "900s")) == []
    assert findings(model() + there + config, "ingress-buffering") == []


def test_a_remedy_sets_the_field_of_the_upstream() -> None:
    (found,) = findings(model() + virtual_server(""), "ingress-buffering")
    assert found.remedy is not None
    assert "virtualserver.k8s.nginx.org/edge" in found.remedy.command
    assert '"path": "/spec/upstreams/0/buffering", "value": false' in found.remedy.command


def test_a_node_port_behind_a_virtual_server_is_its_entry() -> None:
    text = model("NodePort")
    assert len(findings(text, "service-node-port")) == 1
    assert findings(text + virtual_server(""), "service-node-port") == []


def test_an_annotation_keeps_what_else_it_holds() -> None:
    notes = {ALB + "load-balancer-attributes": "access_logs.s3.enabled=true,idle_timeout.timeout_seconds=60"}
    found = findings(model() + ingress("alb", **notes), "ingress-stream-timeout")
    assert found[0].remedy is not None
    assert "access_logs.s3.enabled=true,idle_timeout.timeout_seconds=3600" in found[0].remedy.command


GATEWAY = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: CLASS, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: model, port: 80}] TIMEOUTS}]
"""
ENVOY = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: envoy}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
"""


def route(cls: str, timeouts: str = "") -> str:
    return model() + GATEWAY.replace("CLASS", cls).replace(" TIMEOUTS", f", timeouts: {timeouts}" if timeouts else "")


def seconds(text: str) -> list[str]:
    return [f.title.rpartition("after ")[2] for f in findings(text, "route-stream-timeout")]


def test_envoy_gateway_cuts_after_15_seconds_unless_told_otherwise() -> None:
    assert seconds(route("envoy") + ENVOY) == ["15 s"]
    assert seconds(route("envoy", "{request: 10m}") + ENVOY) == []
    assert seconds(route("other")) == []
    policy = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: long, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  timeout: {http: {requestTimeout: DURATION}}
"""
    assert seconds(route("envoy") + ENVOY + policy.replace("DURATION", "20m")) == []
    assert seconds(route("envoy") + ENVOY + policy.replace("DURATION", "45s")) == ["45 s"]


def test_gkes_load_balancer_waits_30_seconds_unless_a_policy_says_otherwise() -> None:
    assert seconds(route("gke-l7-rilb")) == ["30 s"]
    policy = """
---
apiVersion: networking.gke.io/v1
kind: GCPBackendPolicy
metadata: {name: long, namespace: shop}
spec: {default: {timeoutSec: 900}, targetRef: {group: "", kind: Service, name: model}}
"""
    assert seconds(route("gke-l7-rilb") + policy) == []


ATTACHED = """
---
apiVersion: GROUP
kind: KIND
metadata: {name: p, namespace: shop}
spec: {targetRef: {group: "", kind: TARGET, name: NAME}}
"""


def attached(group: str, kind: str, target: str, name: str) -> str:
    return ATTACHED.replace("GROUP", group).replace("KIND", kind).replace("TARGET", target).replace("NAME", name)


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (attached("networking.gke.io/v1", "HealthCheckPolicy", "Service", "model"), ["30 s"]),
        (attached("networking.gke.io/v1", "HealthCheckPolicy", "Service", "other"), []),
        (attached("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy", "HTTPRoute", "chat"), ["15 s"]),
        (attached("gateway.kgateway.dev/v1alpha1", "BackendTrafficPolicy", "HTTPRoute", "chat"), []),
        ("", []),
    ],
)
def test_a_policy_tells_whose_gateway_it_is_that_is_not_here(policy: str, found: list[str]) -> None:
    rest = GATEWAY.split("---")[2]
    text = model() + "---" + rest.replace(" TIMEOUTS", "") + policy
    assert seconds(text) == found
    assert ("Gateway shop/edge is not here" in unchecked(text, "route-stream-timeout")) is not bool(found)


@pytest.mark.parametrize(
    ("cls", "timeouts", "reason"),
    [
        ("eg", "", "GatewayClass eg is not here"),
        ("eg", "{request: 10m}", ""),
        ("istio", "", ""),
        ("gke-l7-rilb", "", ""),
    ],
)
def test_a_class_that_is_not_here_may_have_a_timeout_of_its_own(cls: str, timeouts: str, reason: str) -> None:
    said = unchecked(route(cls, timeouts), "route-stream-timeout")
    assert reason in said and bool(reason) is bool(said)


def nlb(**notes: str) -> list[str]:
    text = model("LoadBalancer", **{PREFIX + k: v for k, v in notes.items()})
    return [f.evidence[0].statement for f in findings(text, "nlb-idle-timeout")]


def test_listener_attributes_are_without_effect_on_an_in_tree_nlb() -> None:
    attributes = {"listener-attributes.TCP-80": "tcp.idle_timeout.seconds=900"}
    assert nlb(type="external", **attributes) == []
    assert nlb(type="nlb", **attributes) == ["without effect on an in-tree NLB: 350 s"]


HEAD = (
    "metadata: {labels: {app: front}}, spec: {containers: [{name: c, image: 'IMAGE', ports: [{containerPort: 8000}]}]}"
)
WORKER = "{spec: {containers: [{name: w, image: 'IMAGE', resources: {limits: {nvidia.com/gpu: 8}}}]}}"
LEADER = f"{{leaderWorkerTemplate: {{size: 2, leaderTemplate: {{{HEAD}}}, workerTemplate: {WORKER}}}}}"
RAY = f"{{headGroupSpec: {{template: {{{HEAD}}}}}, workerGroupSpecs: [{{groupName: gpu, template: {WORKER}}}]}}"
FRONTS = {
    "leader": ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "vllm/vllm-openai:v0.10.1", LEADER),
    "head": ("ray.io/v1", "RayCluster", "rayproject/ray-llm:2.46.0", RAY),
    "router": ("apps/v1", "Deployment", "lmcache/lmstack-router:1.2", f"{{template: {{{HEAD}}}}}"),
}


@pytest.mark.parametrize("front", FRONTS)
def test_an_nlb_before_what_passes_tokens_on_keeps_silent_connections(front: str) -> None:
    api, kind, image, spec = FRONTS[front]
    notes = f"{PREFIX}type: external, {PREFIX}nlb-target-type: ip"
    text = f"""
apiVersion: {api}
kind: {kind}
metadata: {{name: front, namespace: shop}}
spec: {spec.replace("IMAGE", image)}
---
apiVersion: v1
kind: Service
metadata: {{name: front, namespace: shop, annotations: {{{notes}}}}}
spec: {{type: LoadBalancer, selector: {{app: front}}, ports: [{{port: 80, targetPort: 8000}}]}}
"""
    if front == "router":
        text += "---" + model()
    assert len(findings(text, "nlb-idle-timeout")) == 1
    longer = text.replace(notes, f"{notes}, {PREFIX}listener-attributes.TCP-80: tcp.idle_timeout.seconds=3600")
    assert findings(longer, "nlb-idle-timeout") == []


def test_tls_is_ended_on_the_ports_that_ssl_ports_names() -> None:
    certificate = {"ssl-cert": "arn:aws:acm:x", "type": "external"}
    assert nlb(**certificate) == []
    assert len(nlb(**certificate, **{"ssl-ports": "443"})) == 1
    assert nlb(**certificate, **{"ssl-ports": "http"}) == []


@pytest.mark.parametrize(
    ("retry", "met"),
    [
        ("{codes: [500, 502, 503, 504], attempts: 3}", ["500, 502, 504"]),
        ("{codes: [504]}", ["504"]),
        ("{codes: [503], attempts: 3}", []),
        ("{codes: [504], attempts: 0}", []),
        ("{attempts: 2}", []),
    ],
)
def test_a_routes_own_retry_repeats_a_prompt_on_what_is_met_too_late(retry: str, met: list[str]) -> None:
    text = route("other").replace("port: 80}]}]", f"port: 80}}], retry: {retry}}}]")
    found = findings(text, "route-retries")
    assert [f.title for f in found] == [f"a prompt is sent again on {codes}" for codes in met]
    assert [f.evidence[0].field for f in found] == ["spec.rules[0].retry.codes"] * len(met)
    assert findings(text.replace("vllm/vllm-openai:v0.9.2", "nginx:1.27"), "route-retries") == []


def test_a_rule_that_leads_to_no_model_may_retry() -> None:
    rules = "rules: [{backendRefs: [{name: model, port: 80}]}, {backendRefs: [{name: docs, port: 80}], retry: {codes: [504]}}]"
    text = route("other").replace("rules: [{backendRefs: [{name: model, port: 80}]}]", rules)
    assert findings(text, "route-retries") == []
