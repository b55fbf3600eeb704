"""What kube-proxy says of itself on its node: its mode, and how long its work takes."""

from __future__ import annotations

import http.client
import re
from collections import defaultdict

from kubectl_genainet.model.node import KubeProxyState, Latency
from kubectl_genainet.model.packet import OBSERVER

# metricsBindAddress: 127.0.0.1:10249 unless configured otherwise (KubeProxyConfiguration v1alpha1).
ADDRESS, PORT = "127.0.0.1", 10249
TIMEOUT_S = 2.0
_MAX_BYTES = 4 << 20
_BUCKET = re.compile(r'^(\w+)_bucket\{[^}]*\ble="([^"]+)"[^}]*\} (\d+)', re.MULTILINE)
_SYNC = "kubeproxy_sync_proxy_rules_duration_seconds"
_PROGRAMMING = "kubeproxy_network_programming_duration_seconds"
_QUANTILE = 0.99


def read_kube_proxy() -> KubeProxyState | None:
    """From the loopback of the namespace that the caller is in, the node's. None where no kube-proxy answers there."""
    metrics = _get("/metrics")
    if metrics is None or f"{_SYNC}_count" not in metrics:
        return None
    return parse_metrics(metrics, (_get("/proxyMode") or "").strip())


def parse_metrics(text: str, mode: str) -> KubeProxyState:
    """Prometheus text of kube-proxy (pkg/proxy/metrics/metrics.go); series that differ in other labels are summed."""
    found: dict[str, dict[float, int]] = defaultdict(lambda: defaultdict(int))
    for name, bound, count in _BUCKET.findall(text):
        if name in (_SYNC, _PROGRAMMING):
            found[name][float(bound)] += int(count)
    return KubeProxyState(mode=mode, syncs=_latency(found[_SYNC]), programming=_latency(found[_PROGRAMMING]))


def _latency(buckets: dict[float, int]) -> Latency:
    """Buckets are cumulative; the quantile lies in the first that holds that share, so above the bound before it."""
    total = max(buckets.values(), default=0)
    below = 0.0
    for bound, count in sorted(buckets.items()):
        if count >= _QUANTILE * total:
            return Latency(count=total, p99_over_s=below)
        below = bound
    return Latency(count=total, p99_over_s=below)


def _get(path: str) -> str | None:
    connection = http.client.HTTPConnection(ADDRESS, PORT, timeout=TIMEOUT_S, source_address=(OBSERVER, 0))
    try:
        connection.request("GET", path, headers={"Accept": "text/plain"})
        response = connection.getresponse()
        body = response.read(_MAX_BYTES).decode(errors="replace")
        return body if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
