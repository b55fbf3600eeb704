#!/usr/bin/env bash
# The root of a virtual machine of another architecture than this one's: Debian's packages and wheels, unpacked into
# ~/.cache/kubectl-genainet/root-ARCHITECTURE-KEY. Nothing of it runs while it is made, and nothing is installed. Needs no root.
#
#   scripts/machine-root.sh amd64|arm64   makes it where it is missing; prints the folder
#
# /opt/venv is a virtual environment of its Python with what the agent, the lab and their tests import.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/private-apt.sh
source scripts/private-apt.sh

arch=$1
case $arch in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; *) sed -n '2,7p' "$0" >&2; exit 2 ;; esac
python=$PWD/.venv/bin/python
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet
[[ -x $python ]] || python=python3
mapfile -t packages < <(scripts/packages.sh lab --list)
packages+=(bpftool iputils-ping kmod mount busybox-static '?essential')

say() { echo "root of $arch: $*" >&2; }

requirements() { # the project's, and what its tests in a machine import
  "$python" - <<'END'
import re
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
tests = [r for r in project["optional-dependencies"]["dev"] if re.match(r"(dpkt|pytest|pytest-timeout)\b(?!-)", r)]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["agent"], *tests]))
END
}

unpack() { # ROOT: every package, on one usr/ as an installed system has it
  local root=$1 apt part deb name
  private_apt "$work/apt" "$arch" bookworm
  say "fetching $(scripts/packages.sh lab --list | wc -l) packages and what they need"
  apt-get "${apt[@]}" install -y --download-only --no-install-recommends "${packages[@]}" >&2
  say "unpacking $(find "$work/apt/cache/archives" -name '*.deb' | wc -l) packages"
  for deb in "$work"/apt/cache/archives/*.deb; do dpkg -x "$deb" "$root"; done
  for part in bin sbin lib; do
    cp -a "$root/$part/." "$root/usr/$part/" && rm -rf "${root:?}/$part"
    ln -s "usr/$part" "$root/$part"
  done
  # What the packages' own scripts would do, as far as it is needed.
  for name in passwd group; do cp "$root/usr/share/base-passwd/$name.master" "$root/etc/$name"; done
  for name in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "$root/usr/sbin/$name"; done
  echo "127.0.0.1 localhost" >"$root/etc/hosts"
}

add_environment() { # ROOT
  local venv=$1/opt/venv
  say "fetching wheels"
  mkdir -p "$venv/bin"
  ln -s /usr/bin/python3 "$venv/bin/python"
  printf '%s\n' "home = /usr/bin" "include-system-site-packages = true" >"$venv/pyvenv.cfg"
  # Debian 12's Python is 3.11.
  "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --python-version 3.11 \
    --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" --no-compile \
    --target "$venv/lib/python3.11/site-packages" -r <(requirements)
}

key=$({ cat scripts/machine-root.sh; echo "${packages[*]}"; requirements; } | sha256sum | cut -c1-16)
folder=$cache/root-$arch-$key
mkdir -p "$cache"
exec 9>"$cache/root-$arch.lock"
flock 9
if [[ ! -d $folder ]]; then
  work=$cache/root-$arch.part
  rm -rf "$work" && mkdir -p "$work/root"
  unpack "$work/root"
  add_environment "$work/root"
  # Emulated, the compiling of what is imported would take longer than a test. By another Python it is of no use, nor in the way.
  "$python" -m compileall -q -j 0 -s "$work/root" "$work"/root/usr/lib/python3* "$work/root/opt/venv" >/dev/null || true
  mv "$work/root" "$folder"
  rm -rf "$work"
  find "$cache" -maxdepth 1 -name "root-$arch-*" -mtime +7 -exec rm -rf {} + # of other recipes, and used by no test for a week
  say "done: $(du -sm "$folder" | cut -f1) MB"
fi
touch "$folder"
echo "$folder"
