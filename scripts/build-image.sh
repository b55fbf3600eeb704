#!/usr/bin/env bash
# Builds the agent's image from this checkout, with podman or docker.
#
#   scripts/build-image.sh [--tag REF] [--base IMAGE] [--platform linux/amd64|linux/arm64] [-- FLAGS OF THE BUILD]
#
# Push it where the nodes can pull it, then: kubectl genainet deploy --image REF
set -euo pipefail
cd "$(dirname "$0")/.."
tag=localhost/kubectl-genainet-agent base='' platform=linux/$(dpkg --print-architecture 2>/dev/null || echo amd64) python=.venv/bin/python
while (($#)); do
  case $1 in
    --tag) tag=$2; shift 2 ;;
    --base) base=$2; shift 2 ;;
    --platform) platform=$2; shift 2 ;;
    --) shift; break ;;
    *) sed -n '2,7p' "$0" >&2; exit 2 ;;
  esac
done
[[ -x $python ]] || python=python3
engine=${CONTAINER_ENGINE:-$(command -v podman || command -v docker)} || { echo "neither podman nor docker is here" >&2; exit 1; }
read -ra global <<<"${CONTAINER_ENGINE_FLAGS:-}"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp daemonset/Dockerfile daemonset/alive "$context"
case $platform in linux/amd64) machine=x86_64 ;; linux/arm64) machine=aarch64 ;; *) echo "no such platform: $platform" >&2; exit 2 ;; esac
# Debian 12's Python is 3.11.
"$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --no-deps --dest "$context/wheels" \
  --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" --python-version 3.11 -r daemonset/requirements.txt
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$context/wheels" .
"$engine" ${global[@]+"${global[@]}"} build --tag "$tag" --platform "$platform" ${base:+--build-arg BASE="$base"} "$@" "$context" >&2
echo "$tag"
