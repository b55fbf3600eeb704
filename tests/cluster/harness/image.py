"""The agent's image, built by the project's own Dockerfile on a debootstrapped base: no registry is asked.

podman's storage and the base live in the cache beside the Kubernetes binaries, so that a second run only adds the
project's own files. Run as a program, it fills that cache before the tests do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.processes import run

ROOT = Path(__file__).resolve().parents[3]
AGENT = "localhost/kubectl-genainet-agent:test"
PAUSE = "localhost/genainet-pause:test"
_BASE = "localhost/genainet-base:small"
_NO_REGISTRY = ("--isolation", "chroot", "--network", "host", "--pull=never")
# Of no use in a container, and most of what each node imports.
_LEFT_OUT = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")


class ImageBuilder:
    """`scratch` holds what a run needs and throws away."""

    def __init__(self, binaries: Binaries, scratch: Path) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubectl-genainet"
        self.scratch = scratch
        self._flags = ["--root", str(cache / "containers"), "--runroot", str(cache / "containers-run")]
        self._flags += ["--storage-driver", "overlay"]
        config = scratch / "containers.conf"
        config.write_text(
            '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n'
            '[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\nevents_logger="none"\n'
            f'[engine.runtimes]\nrunc=["{binaries.tools}/bin/runc"]\n'
        )
        self._env = {
            "CONTAINERS_CONF": str(config),
            "CONTAINER_ENGINE": "podman",
            "CONTAINER_ENGINE_FLAGS": " ".join(self._flags),
        }

    def podman(self, *argv: str, stdin: object = None) -> str:
        return self._run(["podman", *self._flags, *argv], stdin)

    def _run(self, argv: list[str], stdin: object = None) -> str:
        done = subprocess.run(
            argv, stdin=stdin, capture_output=True, text=True, env={**os.environ, **self._env}, check=False
        )  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr[-3000:]}")
        return str(done.stdout)

    def build_agent(self) -> None:
        """Tags AGENT in podman's storage."""
        if not self.podman("images", "--quiet", _BASE).strip():
            _say("making its base, a minimal Debian")
            self._make_base()
        _say("building it")
        self._run([str(ROOT / "scripts/build-image.sh"), "--tag", AGENT, "--base", _BASE, "--", *_NO_REGISTRY])

    def build(self) -> Path:
        """One archive with the agent's and the pause image, for `ctr images import`."""
        self.build_agent()
        pause = self.scratch / "pause"
        pause.mkdir()
        (pause / "Dockerfile").write_text(f'FROM {_BASE}\nENTRYPOINT ["sleep", "infinity"]\n')
        self.podman("build", *_NO_REGISTRY, "--tag", PAUSE, str(pause))
        self.podman("image", "prune", "--force", "--filter", "until=24h")  # keeps what the next build begins with
        archive = self.scratch / "images.tar"
        self.podman("save", "--multi-image-archive", "--output", str(archive), AGENT, PAUSE)
        return archive

    def _make_base(self) -> None:
        root = self.scratch / "root"
        mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
        run("debootstrap", "--variant=minbase", "bookworm", str(root), mirror, timeout=600)
        for name in _LEFT_OUT:
            shutil.rmtree(root / name)
            (root / name).mkdir()
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            self.podman("import", "-", _BASE, stdin=tar.stdout)
        if tar.returncode:
            raise RuntimeError("tar failed")
        shutil.rmtree(root)


@contextlib.contextmanager
def shared_images(binaries: Binaries, scratch: Path, shared: Path) -> Iterator[Path]:
    """The archive, made once for all processes with this folder `shared` that want it at that time; the last removes it."""
    archive, own = shared / "images.tar", scratch / "own-images.tar"
    with _locked(shared):
        if not archive.exists():
            ImageBuilder(binaries, scratch).build().rename(archive)
        own.hardlink_to(archive)
    try:
        yield own
    finally:
        with _locked(shared):
            own.unlink()
            if archive.stat().st_nlink == 1:
                archive.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "images.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(what: str) -> None:
    print(f"agent's image: {what}", file=sys.stderr, flush=True)


def main() -> None:
    """The agent's image in the cache: what takes minutes there is a step of its own, in no test's time."""
    if os.geteuid() != 0 or not shutil.which("podman") or not shutil.which("debootstrap"):
        _say("not built: that needs root, podman and debootstrap")
        return
    with tempfile.TemporaryDirectory() as scratch:
        ImageBuilder(Binaries.built(), Path(scratch)).build_agent()


if __name__ == "__main__":
    main()
