#!/usr/bin/env bash
# `scripts/sign-release.sh FOLDER KEY`: writes FOLDER/SHA256SUMS of all files in it, and SHA256SUMS.sig by an SSH key.
set -euo pipefail
folder=$1 key=$2
cd "$folder"
rm -f SHA256SUMS SHA256SUMS.sig
LC_ALL=C sha256sum -- * >../.sums.$$ && mv ../.sums.$$ SHA256SUMS
ssh-keygen -Y sign -q -f "$key" -n kubectl-genainet SHA256SUMS
