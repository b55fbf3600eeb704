"""The binaries that scripts/kubernetes.sh builds and unpacks: Kubernetes by release, and Debian's tools."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_PINS = ROOT / "tests/cluster/kubernetes"


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


RELEASES = sorted((pin.name for pin in _PINS.iterdir() if (pin / "go.mod").exists()), key=_number)
NEWEST = RELEASES[-1]  # all of Kubernetes; of the others kube-proxy, and kube-apiserver of some
OLDER_API_SERVERS = [r for r in RELEASES[:-1] if "/cmd/kube-apiserver" in (_PINS / r / "tools.go").read_text()]


@dataclass(frozen=True)
class Binaries:
    """`root` is the folder that the script prints."""

    root: Path

    @classmethod
    def built(cls) -> Binaries:
        """Raises RuntimeError saying what to run where something is missing: nothing is built in a test's time."""
        command = [str(ROOT / "scripts/kubernetes.sh"), "--folder"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return cls(Path(done.stdout.strip()))

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    def path(self, name: str, release: str = NEWEST) -> Path:
        """A command of Kubernetes of that release, else a program of its own, else a tool."""
        places = (self.root / release / "bin" / name, self.root / name / "bin" / name)
        return next((path for path in places if path.exists()), self.tools / "bin" / name)
