"""kube-proxy's own metrics, as its versions print them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.node import kubeproxy
from kubectl_genainet.agent.node.kubeproxy import parse_metrics, read_kube_proxy
from kubectl_genainet.model.node import KubeProxyState, Latency

V1_20 = """# HELP kubeproxy_sync_proxy_rules_duration_seconds [ALPHA] SyncProxyRules latency in seconds
# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram
kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.512"} 90
kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="1.024"} 97
kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="2.048"} 100
kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="+Inf"} 100
kubeproxy_sync_proxy_rules_duration_seconds_sum 31.5
kubeproxy_sync_proxy_rules_duration_seconds_count 100
kubeproxy_network_programming_duration_seconds_bucket{le="0"} 0
kubeproxy_network_programming_duration_seconds_bucket{le="0.25"} 12
kubeproxy_network_programming_duration_seconds_bucket{le="+Inf"} 12
"""
BY_FAMILY = """kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"} 60
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="+Inf"} 60
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="0.001"} 0
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="+Inf"} 60
"""


def test_the_slowest_in_a_hundred_exceed_the_bound_below_their_bucket() -> None:
    assert parse_metrics(V1_20, "iptables") == KubeProxyState(
        mode="iptables", syncs=Latency(100, 1.024), programming=Latency(12, 0.0)
    )


def test_address_families_are_summed_and_what_is_missing_is_nothing() -> None:
    assert parse_metrics(BY_FAMILY, "") == KubeProxyState(syncs=Latency(120, 0.001))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    pages: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, format: str, *args: object) -> None:
            return None

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setattr(kubeproxy, "PORT", server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield pages
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_answers_on_the_port_and_is_no_kube_proxy_is_not_taken_for_one(served: dict[str, bytes]) -> None:
    assert read_kube_proxy() is None
    served["/metrics"] = b"process_cpu_seconds_total 1\n"
    assert read_kube_proxy() is None
    served["/metrics"] = V1_20.encode()
    served["/proxyMode"] = b"ipvs"
    found = read_kube_proxy()
    assert found is not None and (found.mode, found.syncs.count) == ("ipvs", 100)


def test_nobody_listening_is_nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeproxy, "PORT", 1)
    assert read_kube_proxy() is None
