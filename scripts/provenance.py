"""`python scripts/provenance.py ARCHIVE ...`: an in-toto statement of SLSA provenance (v1): which bytes were made of what.

Who wants to check an archive builds it again from the commit and compares the sums (docs/security.md): the statement says which
commit, and which lists of pinned wheels. $SOURCE_URL is the repository, $SOURCE_DATE_EPOCH the time in the archive. Of a checkout
that is not what its commit says there is none: it would name bytes that nobody can build again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BUILD_TYPE = "scripts/build-release.sh"
PINNED = ("scripts/release-requirements.txt", "daemonset/requirements.txt", "daemonset/Dockerfile")


def _sum(path: Path) -> dict[str, str]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def statement(archives: Sequence[Path], *, commit: str, source: str, epoch: str) -> dict[str, Any]:
    dependencies = [{"uri": f"git+{source}", "digest": {"gitCommit": commit}}]
    dependencies += [{"uri": f"file:{name}", "digest": _sum(ROOT / name)} for name in PINNED]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": _sum(path)} for path in archives],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{source}/{BUILD_TYPE}",
                "externalParameters": {
                    "commit": commit,
                    "python": sys.version.split()[0],
                    "SOURCE_DATE_EPOCH": epoch,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": f"{source}/{BUILD_TYPE}"}},
        },
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    if changed := _git("status", "--porcelain"):
        sys.exit(f"no provenance: the checkout is not what its commit says\n{changed}")
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct")
    source = os.environ.get("SOURCE_URL", "kubectl-genainet")
    archives = [Path(name) for name in sys.argv[1:]]
    said = statement(archives, commit=_git("rev-parse", "HEAD"), source=source, epoch=epoch)
    print(json.dumps(said, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
