#!/usr/bin/env bash
# Installs the Debian packages that are missing, as root; names them otherwise.
#   scripts/packages.sh lab   what the agent and the lab need
#   scripts/packages.sh all   that, and what the tests and benchmarks need
#   scripts/packages.sh vm    that, and what `make test-vm` needs
#   scripts/packages.sh lab --list   prints them, and installs none
set -euo pipefail

packages=(python3 python3-venv python3-bpfcc iproute2 iptables nftables conntrack ipset dnsmasq-base procps util-linux)
wanted=${1:-all}
if [[ $wanted != lab ]]; then
  packages+=(bpftool bpftrace iperf3 iputils-ping ethtool tcpdump chromium
             openssl podman debootstrap gcc libc6-dev) # for tests/cluster
fi
if [[ $wanted == vm ]]; then
  packages+=(qemu-system-x86 qemu-system-arm busybox-static kmod ipvsadm ibverbs-utils ibverbs-providers faketime)
fi
if [[ ${2:-} == --list ]]; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

if ! command -v dpkg-query >/dev/null; then
  echo "setup: this is no Debian: install these yourself: ${packages[*]}" >&2
  exit 0
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0
if [[ $(id -u) != 0 ]]; then
  echo "setup: not root, so these Debian packages are still missing: ${missing[*]}" >&2
  exit 0
fi
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
