#!/usr/bin/env bash
# Builds the archive that krew installs, for the platform it runs on: dist/kubectl-genainet-OS-ARCH.tar.gz, with the
# plugin as one folder that needs no Python, kubectl_complete-genainet beside it, and the LICENSE.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
os=$(uname -s | tr '[:upper:]' '[:lower:]')
bin=bin
case $os in mingw* | msys*) os=windows bin=Scripts ;; esac
tar=$(command -v gtar || command -v tar) # macOS: brew install gnu-tar
case $(uname -m) in x86_64 | amd64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;; *) echo "no such machine: $(uname -m)" >&2; exit 1 ;; esac
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} PYTHONHASHSEED=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
pip=("$work/venv/$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps)
"${pip[@]}" --require-hashes -r scripts/release-requirements.txt
"${pip[@]}" --no-build-isolation .
cat >"$work/plugin.py" <<'PY'
"""One program under two names: the plugin, and what kubectl runs to complete its command line."""
import os
import sys

if os.path.basename(sys.argv[0]).startswith("kubectl_complete-"):
    from kubectl_genainet.completion import main
else:
    from kubectl_genainet.__main__ import main
main()
PY
# Verbs are imported by name, so the analysis does not see them; probes/ and daemonset/ are data of the package.
(cd "$work" && "venv/$bin/pyinstaller" --noconfirm --log-level ERROR --name kubectl-genainet --onedir \
  --collect-submodules kubectl_genainet --collect-data kubectl_genainet --exclude-module bcc plugin.py)
# RECORD has hashes of commands whose first line names the build's temporary folder; nothing reads it.
find "$work/dist/kubectl-genainet" -path '*.dist-info/RECORD' -delete
cp LICENSE "$work/dist/kubectl-genainet/"
if [[ $os == windows ]]; then # no symbolic links there
  cp "$work/dist/kubectl-genainet/kubectl-genainet.exe" "$work/dist/kubectl-genainet/kubectl_complete-genainet.exe"
else
  ln -s kubectl-genainet "$work/dist/kubectl-genainet/kubectl_complete-genainet"
fi
mkdir -p dist
# The same commit gives the same bytes: names in order, one time, one owner, no name and time in gzip's header.
"$tar" -C "$work/dist/kubectl-genainet" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
  --mode=u+rwX,go+rX,go-w -cf - . | gzip -n >"dist/kubectl-genainet-$os-$arch.tar.gz"
"$work/venv/$bin/python" scripts/sbom.py >"dist/kubectl-genainet-$os-$arch.spdx.json"
# Not of a checkout with changes: the archive is there then, and no statement of where it comes from.
statement="dist/kubectl-genainet-$os-$arch.provenance.json"
"$work/venv/$bin/python" scripts/provenance.py "dist/kubectl-genainet-$os-$arch.tar.gz" >"$statement" || rm "$statement"
echo "dist/kubectl-genainet-$os-$arch.tar.gz"
