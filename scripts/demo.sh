#!/usr/bin/env bash
# The main job, shown on real packets: a healthy Service, then one that a policy stops, traced in the lab.
# Where the machine can't run the lab (no root, no BTF, no BPF) it replays a recording of the same, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-demo
lab=demo

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || say() { printf '\n%s\n' "$*"; }

python=/usr/bin/python3
[[ -x $python ]] || python=python3
newest=$(find kubectl_genainet probes daemonset pyproject.toml -type f -not -name '*.pyc' -newer "$venv/.installed" 2>/dev/null | head -1 || true)
if [[ ! -f $venv/.installed || -n $newest ]]; then
  say "Building the wheel and installing it into $venv"
  [[ -x $venv/bin/python ]] || "$python" -m venv --system-site-packages "$venv"
  rm -rf dist
  "$venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps dist/*.whl
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(echo dist/*.whl)[lab]"
  touch "$venv/.installed"
fi

export PATH=$PWD/$venv/bin:$PATH
if command -v kubectl >/dev/null; then
  genainet() { kubectl genainet "$@"; }
  name="kubectl genainet"
else
  genainet() { kubectl-genainet "$@"; }
  name="kubectl-genainet"
  echo "kubectl is not installed: calling the plugin directly"
fi
shown() { say "\$ $name $*"; genainet "$@"; }
found() { shown "$@" || [[ $? == 1 ]]; } # exit status 1: it found something wrong, as it should

why_not() {
  [[ $(id -u) == 0 ]] || { echo "not root"; return; }
  [[ -r /sys/kernel/btf/vmlinux ]] || { echo "the kernel has no BTF"; return; }
  "$venv/bin/python" -c 'import bcc' 2>/dev/null || { echo "python3-bpfcc is not installed"; return; }
  ip netns add gnlab-demo-try 2>/dev/null || { echo "network namespaces can't be made"; return; }
  ip netns del gnlab-demo-try
}

reason=$(why_not)
if [[ -n $reason ]]; then
  bundles=$("$venv/bin/python" -c 'from kubectl_genainet.assets import recordings; print(recordings())')
  say "This is a replay of recorded traffic, not live: $reason"
  shown trace svc/my-llama-svc --from "$bundles/healthy.gnb"
  found trace svc/my-llama-svc --from "$bundles/policy-service-port.gnb"
  found diagnose svc/my-llama-svc --from "$bundles/policy-service-port.gnb"
  exit 0
fi

trap 'genainet lab down --lab "$lab" >/dev/null 2>&1 || true' EXIT
genainet lab down --lab "$lab" >/dev/null 2>&1 || true
shown lab up --lab "$lab"
shown trace svc/my-llama-svc --lab "$lab" --timeout 2s
shown lab incident policy-service-port --lab "$lab"
found trace svc/my-llama-svc --lab "$lab" --timeout 2s
found diagnose svc/my-llama-svc --lab "$lab" --for 5s
say "More: $name lab incident, $name --help. The lab is taken down now."
