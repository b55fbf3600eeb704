#!/usr/bin/env bash
# A real Kubernetes for the tests: builds the server side from Debian's source package, unpacks etcd and containerd
# beside it, and prints the folder that holds them all (bin/). Installs nothing and needs no root; the result is
# cached by source version outside the repository, so that the second call takes no time and no network.
#
#   scripts/build-kubernetes.sh [--refresh]      the folder, e.g. ~/.cache/kubectl-genainet/kubernetes-1.20.2…
#
# Debian packages no server binaries, but its source package is the whole upstream tree with vendor/ and builds offline.
# About 200 s and 1.5 GB on two cores. GENAINET_KUBERNETES names a folder with the binaries to use instead.
set -euo pipefail

recipe=1 # raise it when this script builds something else from the same source
components=(kube-apiserver kube-proxy kube-controller-manager kube-scheduler kubelet)
unpacked=(etcd-server containerd runc containernetworking-plugins)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${DEBIAN_SUITE:-bookworm}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet

say() { echo "build-kubernetes: $*" >&2; }
die() { say "$*"; exit 1; }

if [[ -n ${GENAINET_KUBERNETES:-} ]]; then
  [[ -x $GENAINET_KUBERNETES/bin/kube-apiserver ]] || die "GENAINET_KUBERNETES has no bin/kube-apiserver"
  echo "$GENAINET_KUBERNETES"
  exit
fi

mkdir -p "$cache"
exec 9>"$cache/build.lock"
flock 9 # two test runs at once build once
current=$cache/kubernetes-current
if [[ ${1:-} != --refresh && -f $current/.complete-$recipe ]]; then
  readlink -f "$current"
  exit
fi
for tool in apt-get dpkg dpkg-source patch xz; do
  command -v "$tool" >/dev/null || die "$tool is missing (Debian packages: apt dpkg-dev patch xz-utils)"
done

work=$(mktemp -d "$cache/build.XXXXXX")
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
log=$work/log
trap 'say "failed; the last lines:"; tail -n 20 "$log" >&2' ERR
cd "$work"

# An apt state of its own: the machine's sources stay as they are (they seldom have deb-src lines).
mkdir -p apt/state/lists/partial apt/cache/archives/partial apt/empty
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
printf 'deb [signed-by=%s] %s %s main\ndeb-src [signed-by=%s] %s %s main\n' \
  "$keyring" "$mirror" "$suite" "$keyring" "$mirror" "$suite" >apt/sources.list
apt=(-o Dir::State="$work/apt/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$work/apt/cache"
     -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts="$work/apt/empty"
     -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3)
say "fetching the source of kubernetes from $mirror $suite"
apt-get "${apt[@]}" update -qq >>"$log" 2>&1
apt-get "${apt[@]}" source --download-only -qq kubernetes >>"$log" 2>&1
apt-get "${apt[@]}" download -qq golang-1.19-go golang-1.19-src "${unpacked[@]}" >>"$log" 2>&1
version=$(sed -n 's/^Version: //p' ./*.dsc | head -n 1)
upstream=$(sed -E 's/.*really//; s/-.*//' <<<"$version")
target=$cache/kubernetes-$version
mkdir -p out/bin go/src/k8s.io root
for package in ./*.deb; do dpkg -x "$package" root; done
dpkg-source --no-check -x ./*.dsc tree >>"$log" 2>&1

say "building Kubernetes $upstream (about three minutes)"
ln -s "$work/tree" go/src/k8s.io/kubernetes
export GOPATH=$work/go GOROOT=$work/root/usr/lib/go-1.19 GOCACHE=$work/gocache GO111MODULE=off CGO_ENABLED=0 GOPROXY=off
export GOFLAGS= PATH=$work/root/usr/lib/go-1.19/bin:$PATH
cd "$GOPATH/src/k8s.io/kubernetes"

# kube-apiserver compiles only with the OpenAPI definitions that upstream's build generates.
go build -p 2 -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen >>"$log" 2>&1
directories=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg plugin cmd staging/src/k8s.io |
  grep -v -e /code-generator/ -e /sample- | xargs -n1 dirname | sort -u |
  sed -e 's,^staging/src/,k8s.io/kubernetes/vendor/,' -e '/^k8s.io/!s,^,k8s.io/kubernetes/,' | paste -sd,)
"$work/openapi-gen" -i "$directories" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
  -h hack/boilerplate/boilerplate.generatego.txt -o "$GOPATH/src" >>"$log" 2>&1

for package in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version; do
  stamp+=" -X $package.gitVersion=v$upstream -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$upstream")"
  stamp+=" -X $package.gitTreeState=clean -X $package.gitCommit=debian-$version"
done
# One after the other: linking two of them at once needs more memory than a small CI machine has.
for component in "${components[@]}"; do
  nice go build -p 2 -ldflags "-s -w $stamp" -o "$work/out/bin/$component" "k8s.io/kubernetes/cmd/$component" >>"$log" 2>&1
  say "built $component"
done
cd "$work"
for file in usr/bin/etcd usr/bin/containerd usr/bin/containerd-shim-runc-v2 usr/bin/ctr usr/sbin/runc; do
  cp "root/$file" out/bin/
done
cp -r root/usr/lib/cni out/cni
touch "out/.complete-$recipe"
rm -rf "$target"
mv out "$target"
ln -sfn "$target" "$current"
echo "$target"
