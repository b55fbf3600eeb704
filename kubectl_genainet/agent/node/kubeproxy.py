"""What kube-proxy says of itself on its node: its mode, and how long its work takes."""

from __future__ import annotations

import http.client
import math
import re
from collections import defaultdict

from kubectl_genainet.model.node import KubeProxyState, Latency
from kubectl_genainet.model.packet import OBSERVER
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.untrusted_http import BROKEN, hung_up_after

# metricsBindAddress: 127.0.0.1:10249 unless configured otherwise (KubeProxyConfiguration v1alpha1).
ADDRESS, PORT = "127.0.0.1", 10249
TIMEOUT_S = 2.0  # of a whole answer, however it drips
_MAX_BYTES = 4 << 20
_MAX_LINE = 4096
_LABEL = re.compile(r'[{,]\s*le="([^"]{1,32})"')
_MODE = re.compile(r"[a-z0-9-]{1,32}")
_SYNC = "kubeproxy_sync_proxy_rules_duration_seconds"
_PROGRAMMING = "kubeproxy_network_programming_duration_seconds"
_QUANTILE = 0.99
_MOST = 1 << 44  # a count beyond it is none, and sums stay within what a record can carry


def read_kube_proxy() -> KubeProxyState | None:
    """From the loopback of the namespace that the caller is in, the node's. None where no kube-proxy answers there.

    Any process of the host's network may be what answers: nothing of it is taken on but numbers and the mode's name.
    """
    metrics = _get("/metrics")
    if metrics is None or f"{_SYNC}_count" not in metrics:
        return None
    return parse_metrics(metrics, (_get("/proxyMode") or "").strip())


def parse_metrics(text: str, mode: str) -> KubeProxyState:
    """Prometheus text of kube-proxy (pkg/proxy/metrics/metrics.go); series that differ in other labels are summed.

    Lines that are not a bucket of these histograms are left out; a mode that is no word is "".
    """
    buckets: dict[str, dict[float, int]] = defaultdict(lambda: defaultdict(int))
    for line in text.splitlines():
        name = next((name for name in (_SYNC, _PROGRAMMING) if line.startswith(f"{name}_bucket{{")), None)
        if name is not None and (bucket := _bucket(line[:_MAX_LINE])) is not None:
            bound, count = bucket
            buckets[name][bound] += count
    plain = mode if _MODE.fullmatch(mode) else ""
    return KubeProxyState(mode=plain, syncs=_latency(buckets[_SYNC]), programming=_latency(buckets[_PROGRAMMING]))


def _bucket(line: str) -> tuple[float, int] | None:
    """(upper bound, how many) of a line such as `NAME_bucket{le="0.5"} 12`; None for one that is not like that."""
    labels, brace, value = line.rpartition("}")
    label = _LABEL.search(labels)
    count = whole_number((value.split() or [""])[0])
    try:
        bound = float(label[1]) if label and brace else math.nan
    except ValueError:
        return None
    return (bound, count) if count is not None and count <= _MOST and bound >= 0 else None  # NaN is not


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
        connection.connect()
        with hung_up_after(connection.sock, TIMEOUT_S) as late:
            connection.request("GET", path, headers={"Accept": "text/plain"})
            response = connection.getresponse()
            body = response.read(_MAX_BYTES).decode(errors="replace")
            return body if response.status == 200 and not late.is_set() else None
    except BROKEN:
        return None
    finally:
        connection.close()
