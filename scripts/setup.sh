#!/usr/bin/env bash
# Installs what the project needs: Debian packages (as root), a virtual environment that sees Debian's
# python3-bpfcc, and the project itself with its development tools. Runs nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

scripts/packages.sh all
# The distribution's Python: the bcc module belongs to it.
python=/usr/bin/python3
[[ -x $python ]] || python=python3
[[ -x $venv/bin/python ]] || "$python" -m venv --system-site-packages "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[agent,dev,history,lab,mcp]'
