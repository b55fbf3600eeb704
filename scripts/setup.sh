#!/usr/bin/env bash
# Installs what the project needs: Debian packages (as root), a virtual environment that sees Debian's
# python3-bpfcc, and the project itself with its development tools. Runs nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

packages=(python3 python3-venv python3-bpfcc bpftool iproute2 iptables nftables conntrack ipset
          dnsmasq-base iperf3 bpftrace iputils-ping ethtool procps tcpdump chromium)

missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
else
  echo "setup: this is no Debian: install these yourself: ${packages[*]}" >&2
fi
if ((${#missing[@]})); then
  if [[ $(id -u) == 0 ]]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "setup: not root, so these Debian packages are still missing: ${missing[*]}" >&2
  fi
fi

# The distribution's Python: the bcc module belongs to it.
python=/usr/bin/python3
[[ -x $python ]] || python=python3
[[ -x $venv/bin/python ]] || "$python" -m venv --system-site-packages "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'
