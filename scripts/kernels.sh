#!/usr/bin/env bash
# Debian's kernels that the tests know beside the running one, unpacked into ~/.cache/kubectl-genainet/kernels; never
# installed. Needs no root.
#
#   scripts/kernels.sh [VERSION[:ARCHITECTURE]]...   fetches those that are missing; prints the folder of each
#
# VERSION is 5.10, 6.1 or 6.12 (all three without arguments), ARCHITECTURE Debian's name (the machine's own by default).
# A folder has boot/vmlinuz-RELEASE and lib/modules/RELEASE of the package, and vmlinux.btf, the kernel's type information.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/private-apt.sh
source scripts/private-apt.sh

python=$PWD/.venv/bin/python
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet/kernels
own=$(dpkg --print-architecture)
[[ -x $python ]] || python=python3
declare -A suites=([5.10]=bullseye [6.1]=bookworm [6.12]=bookworm-security)
declare -A packages=([5.10]=linux-image [6.1]=linux-image [6.12]=linux-image-6.12)

unpack() { # FOLDER VERSION ARCHITECTURE
  local work=$1.part suite=${suites[$2]} package apt
  rm -rf "$work"
  echo "kernels: fetching Linux $2 for $3 of $suite" >&2
  private_apt "$work/apt" "$3" "$suite"
  # The package of this name is empty and depends on the newest release.
  package=$(apt-cache "${apt[@]}" depends "${packages[$2]}-$3" | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
  (cd "$work" && apt-get "${apt[@]}" download "$package" >&2 && dpkg -x "$package"_*.deb .)
  rm -rf "$work/apt" "$work"/*.deb "$work/usr"
  "$python" -m tests.vmlinux "$work"/boot/vmlinuz-* "$work/vmlinux.btf"
  rm -rf "$1" && mv "$work" "$1"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
(($#)) || set -- 5.10 6.1 6.12
for wanted; do
  version=${wanted%:*} arch=$own
  [[ $wanted != *:* ]] || arch=${wanted#*:}
  folder=$cache/$version
  [[ $arch == "$own" ]] || folder+=-$arch
  [[ -f $folder/vmlinux.btf ]] || unpack "$folder" "$version" "$arch"
  echo "$folder"
done
