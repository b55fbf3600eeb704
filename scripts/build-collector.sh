#!/usr/bin/env bash
# Builds an OpenTelemetry Collector with the ClickHouse exporter from its Go modules, into ~/.cache/kubectl-genainet, and checks
# daemonset/clickhouse/collector.yaml with it. Six minutes on two cores, once; needs Go 1.25 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet/collector
version=0.165.0
want=$(sha256sum daemonset/clickhouse/builder.yaml | cut -c1-16)

if [[ ! -x $cache/$want/otelcol-genainet ]]; then
  mkdir -p "$cache/$want"
  GOBIN=$cache go install "go.opentelemetry.io/collector/cmd/builder@v$version"
  sed "s|^dist:|dist:\n  output_path: $cache/$want|" daemonset/clickhouse/builder.yaml >"$cache/builder.yaml"
  "$cache/builder" --config "$cache/builder.yaml" >&2
fi
CLICKHOUSE_ENDPOINT=tcp://localhost:9000 CLICKHOUSE_USER=default CLICKHOUSE_PASSWORD='' \
  "$cache/$want/otelcol-genainet" validate --config daemonset/clickhouse/collector.yaml
echo "$cache/$want/otelcol-genainet"
