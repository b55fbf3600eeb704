#!/usr/bin/env bash
# Cilium's own policy engine as a program (tests/oracles/cilium/*.go), for the tests that compare with it. Prints the
# program's path. The modules are pinned by go.sum; the result is cached by its source outside the repository, so that the
# second call takes no time and no network.
#
# About three minutes of CPU and 2 GB of Go's caches the first time. GENAINET_CILIUM_ORACLE names a program to use instead.
set -euo pipefail

source=$(cd "$(dirname "$0")/../tests/oracles/cilium" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet

say() { echo "build-cilium-oracle: $*" >&2; }

if [[ -n ${GENAINET_CILIUM_ORACLE:-} ]]; then
  echo "$GENAINET_CILIUM_ORACLE"
  exit
fi
digest=$(cd "$source" && sha256sum -- *.go go.mod go.sum | sha256sum | cut -c1-16)
program=$cache/cilium-oracle-$digest
mkdir -p "$cache"
exec 9>"$cache/cilium-oracle.lock"
flock 9 # two test runs at once build once
if [[ ! -x $program ]]; then
  PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin
  command -v go >/dev/null || { say "Go is missing: https://go.dev/dl"; exit 1; }
  say "building Cilium's policy engine (about three minutes of CPU)"
  (cd "$source" && CGO_ENABLED=0 nice -n 10 go build -p 2 -trimpath -ldflags='-s -w' -o "$program.new" .)
  find "$cache" -maxdepth 1 -name 'cilium-oracle-*' ! -name '*.lock' ! -name "$(basename "$program").new" -delete
  mv "$program.new" "$program"
fi
echo "$program"
