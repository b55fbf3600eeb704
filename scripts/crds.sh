#!/usr/bin/env bash
# The CustomResourceDefinitions of the projects that tests/cluster/crds/modules.txt names, out of their own Go modules, into
# ~/.cache/kubectl-genainet/kubernetes/crds (or $GENAINET_KUBERNETES/crds). Needs no root.
#
#   scripts/crds.sh    those that are missing; prints the folder
set -euo pipefail
cd "$(dirname "$0")/.."

list=$PWD/tests/cluster/crds/modules.txt
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet
folder=${GENAINET_KUBERNETES:-$cache/kubernetes}/crds
export GOTOOLCHAIN=local

say() { echo "crds: $*" >&2; }

fetch() { # MODULE VERSION PLACE NAME: its definitions, and nothing else of the module
  local place
  place=$(cd / && GOFLAGS='' GOMODCACHE=$work/mod go mod download -json "$1@$2" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p')/$3
  mkdir "$work/out"
  grep -rlE '^kind: "?CustomResourceDefinition"?' "$place" --include='*.yaml' | xargs cp -t "$work/out"
  mv "$work/out" "$folder/$4"
  chmod -R u+w "$work/mod" && rm -rf "$work/mod"
  say "$1 $2: $(find "$folder/$4" -type f | wc -l) files"
}

mkdir -p "$folder"
command -v go >/dev/null || PATH=$cache/go/go/bin:$PATH # as scripts/kubernetes.sh keeps it
work=$(mktemp -d "$cache/crds.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
wanted=()
while read -r module version place; do
  [[ $module == "#"* ]] && continue
  name=${module//\//+}@$version-$(sha256sum <<<"$place" | cut -c1-8)
  wanted+=("$name")
  [[ -d $folder/$name ]] || fetch "$module" "$version" "$place" "$name"
done <"$list"
for there in "$folder"/*; do
  [[ " ${wanted[*]} " == *" ${there##*/} "* ]] || rm -rf "$there" # of another list
done
echo "$folder"
