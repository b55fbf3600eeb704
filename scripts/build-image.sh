#!/usr/bin/env bash
# Builds the agent's image from this checkout, with podman or docker.
#
#   scripts/build-image.sh [--tag REF] [--base IMAGE] [--snapshot TIME] [--platform PLATFORM[,PLATFORM]] [-- FLAGS OF THE BUILD]
#
# PLATFORM is linux/amd64 or linux/arm64 (this machine's by default). With both, REF is a list of two images, of which a node pulls
# its own; another architecture's programs run by qemu-user and binfmt_misc. `podman manifest push --all REF` pushes both.
# Without --base: the Dockerfile's base by its digest, and its time of snapshot.debian.org, so that the build can be made again.
# With --base: that image, and the packages of now, or of --snapshot (20261101T000000Z).
# Push it where the nodes can pull it, then: kubectl genainet deploy --image REF@sha256:DIGEST
set -euo pipefail
cd "$(dirname "$0")/.."
tag=localhost/kubectl-genainet-agent base='' snapshot=pinned platform=linux/$(dpkg --print-architecture 2>/dev/null || echo amd64) python=.venv/bin/python
while (($#)); do
  case $1 in
    --tag) tag=$2; shift 2 ;;
    --base) base=$2; [[ $snapshot != pinned ]] || snapshot=''; shift 2 ;;
    --snapshot) snapshot=$2; shift 2 ;;
    --platform) platform=$2; shift 2 ;;
    --) shift; break ;;
    *) sed -n '2,10p' "$0" >&2; exit 2 ;;
  esac
done
[[ -x $python ]] || python=python3
engine=${CONTAINER_ENGINE:-$(command -v podman || command -v docker)} || { echo "neither podman nor docker is here" >&2; exit 1; }
read -ra global <<<"${CONTAINER_ENGINE_FLAGS:-}"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp daemonset/Dockerfile daemonset/alive daemonset/apt-snapshot daemonset/icudata.s "$context"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
for each in ${platform//,/ }; do
  case $each in linux/amd64) machine=x86_64 ;; linux/arm64) machine=aarch64 ;; *) echo "no such platform: $each" >&2; exit 2 ;; esac
  # Debian 12's Python is 3.11.
  "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --require-hashes --no-deps --python-version 3.11 \
    --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" --dest "$context/wheels/${each#linux/}" -r daemonset/requirements.txt
done
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$context/wheels/all" .
pins=()
[[ $snapshot == pinned ]] || pins=(--build-arg SNAPSHOT="$snapshot")
# podman gives layers and files of the image this time; BuildKit takes it from SOURCE_DATE_EPOCH.
[[ $engine != *podman || -n $base ]] || pins+=(--timestamp "$SOURCE_DATE_EPOCH")
name=--tag # podman collects the images of several platforms under a name of their own kind
[[ $engine != *podman || $platform != *,* ]] || name=--manifest
"$engine" ${global[@]+"${global[@]}"} build "$name" "$tag" --platform "$platform" ${base:+--build-arg BASE="$base"} "${pins[@]}" "$@" "$context" >&2
echo "$tag"
