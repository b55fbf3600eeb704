#!/usr/bin/env bash
# `scripts/verify-release.sh FOLDER [SIGNERS]`: whether the files of a release in FOLDER are those that were signed. Needs no network.
# SIGNERS are the keys that are believed, as ssh-keygen(1) lists them under ALLOWED SIGNERS; default: scripts/release-signers.
set -euo pipefail
signers=$(realpath "${2:-$(dirname "$0")/release-signers}")
cd "$1"
fail() { echo "not verified: $1" >&2; exit 1; }
[[ -f SHA256SUMS && -f SHA256SUMS.sig ]] || fail "SHA256SUMS and SHA256SUMS.sig belong beside the files"
grep -qv '^ *\(#\|$\)' "$signers" || fail "$signers names no key"
ssh-keygen -Y verify -f "$signers" -I release -n kubectl-genainet -s SHA256SUMS.sig <SHA256SUMS >/dev/null 2>&1 ||
  fail "SHA256SUMS is not signed by a key of $signers"
sha256sum --check --strict --quiet --ignore-missing SHA256SUMS || fail "a file is not the one that was signed"
count=0
shopt -s dotglob
for file in *; do
  case $file in SHA256SUMS | SHA256SUMS.sig) continue ;; esac
  # The whole name: that of a listed file may begin with it.
  name=$file awk 'substr($0, 67) == ENVIRON["name"] { listed = 1 } END { exit !listed }' SHA256SUMS || fail "$file is not in SHA256SUMS"
  count=$((count + 1))
  case $file in *.tar.gz)
    statement=${file%.tar.gz}.provenance.json
    sum=$(sha256sum -- "$file")
    if [[ -f $statement ]]; then grep -qF "\"sha256\": \"${sum%% *}\"" "$statement" || fail "$statement is of another archive"; fi
    ;;
  esac
done
((count)) || fail "there is no file beside SHA256SUMS"
echo "verified: $count files, signed"
