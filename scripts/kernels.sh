#!/usr/bin/env bash
# Debian's kernels that the tests know beside the running one, unpacked into ~/.cache/kubectl-genainet/kernels; never
# installed. Needs no root.
#
#   scripts/kernels.sh [5.10|6.1|6.12]...   those that are missing (all); prints the folder
#
# VERSION/ has boot/vmlinuz-RELEASE and lib/modules/RELEASE of the package, and vmlinux.btf, the kernel's type information.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$PWD/.venv/bin/python
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet/kernels
mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
arch=${GENAINET_KERNEL_ARCH:-$(dpkg --print-architecture)}
[[ -x $python ]] || python=python3
declare -A suites=([5.10]="debian bullseye" [6.1]="debian bookworm" [6.12]="debian-security bookworm-security")
declare -A packages=([5.10]="linux-image-$arch" [6.1]="linux-image-$arch" [6.12]="linux-image-6.12-$arch")

say() { echo "kernels: $*" >&2; }

unpack() { # VERSION: by an apt state of its own, so that the machine's sources stay as they are
  local archive suite package work=$folder/$1.part apt
  read -r archive suite <<<"${suites[$1]}"
  rm -rf "$work" && mkdir -p "$work"/apt/{state/lists/partial,cache/archives/partial,empty}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=$arch] $mirror/$archive $suite main" >"$work/apt/sources.list"
  touch "$work/apt/state/status"
  apt=(-qq -o Dir::State="$work/apt/state" -o Dir::State::status="$work/apt/state/status" -o Dir::Cache="$work/apt/cache"
    -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts="$work/apt/empty" -o APT::Architecture="$arch"
    -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false)
  say "fetching Linux $1 of $suite"
  apt-get "${apt[@]}" update >&2
  # The package of this name is empty and depends on the newest release.
  package=$(apt-cache "${apt[@]}" depends "${packages[$1]}" | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
  (cd "$work" && apt-get "${apt[@]}" download "$package" >&2 && dpkg -x "$package"_*.deb .)
  rm -rf "$work/apt" "$work"/*.deb "$work/usr"
  "$python" -m tests.vmlinux "$work"/boot/vmlinuz-* "$work/vmlinux.btf"
  rm -rf "${folder:?}/$1" && mv "$work" "$folder/$1"
}

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
(($#)) || set -- 5.10 6.1 6.12
for version; do
  [[ -f $folder/$version/vmlinux.btf ]] || unpack "$version"
done
echo "$folder"
