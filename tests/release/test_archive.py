"""The archive that people install, built twice. Needs the package index, and a minute or two for each."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
NAME = f"kubectl-genainet-linux-{MACHINE}"


def build(checkout: Path) -> dict[str, bytes]:
    """What the script writes, by the ending of its names."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHON": shutil.which("python3") or "python3"}
    subprocess.run(["bash", str(checkout / "scripts/build-release.sh")], check=True, timeout=1200, env=environment)
    found = {p.name.removeprefix(NAME): p.read_bytes() for p in (checkout / "dist").iterdir()}
    shutil.rmtree(checkout / "dist")
    return found


@pytest.mark.timeout(2700)
def test_an_archive_is_the_same_twice(tmp_path: Path) -> None:
    """From two clones, in folders of other names."""
    built = []
    origins = {"one": ROOT, "the-other": tmp_path / "one"}  # one commit, whatever becomes of ours meanwhile
    for name, origin in origins.items():
        subprocess.run(["git", "clone", "--quiet", str(origin), str(tmp_path / name)], check=True, timeout=120)
        built.append(build(tmp_path / name))
    first, second = built
    assert set(first) == {".tar.gz", ".spdx.json", ".provenance.json"}
    assert first == second
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(first[".tar.gz"])
    said = json.loads(first[".provenance.json"])["subject"][0]
    assert said["digest"]["sha256"] == hashlib.sha256(first[".tar.gz"]).hexdigest()
    with tarfile.open(archive) as inside:
        assert {m.mtime for m in inside.getmembers()} == {1700000000}
    (tmp_path / "plugin").mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(tmp_path / "plugin")], check=True, timeout=120)
    version = [str(tmp_path / "plugin/kubectl-genainet"), "version", "--client", "-o", "json"]
    done = subprocess.run(version, capture_output=True, text=True, timeout=60, check=True)
    assert "client" in json.loads(done.stdout)
    names = {p["name"] for p in json.loads(first[".spdx.json"])["packages"]}
    assert {"kubectl-genainet", "click", "msgspec", "kubernetes", "rich"} <= names
    signed_and_verified(first, tmp_path)


def signed_and_verified(release: dict[str, bytes], folder: Path) -> None:
    """As docs/security.md has a maintainer do it once, the release workflow each time, and then whoever wants to know."""
    dist, signers = folder / "dist", folder / "release-signers"
    dist.mkdir()
    for ending, data in release.items():
        (dist / f"{NAME}{ending}").write_bytes(data)
    signers.write_text((ROOT / "scripts/release-signers").read_text())
    once = (
        "ssh-keygen -q -t ed25519 -N '' -f release-key && "
        'echo "release namespaces=\\"kubectl-genainet\\" $(cut -d \' \' -f 1,2 release-key.pub)" >>release-signers'
    )
    subprocess.run(["bash", "-c", once], cwd=folder, check=True, timeout=60)
    scripts = ROOT / "scripts"
    subprocess.run(
        ["bash", str(scripts / "sign-release.sh"), str(dist), str(folder / "release-key")], check=True, timeout=60
    )

    def verify() -> subprocess.CompletedProcess[str]:
        command = ["bash", str(scripts / "verify-release.sh"), str(dist), str(signers)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert verify().stdout == "verified: 3 files, signed\n"
    archive = dist / f"{NAME}.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    assert "not the one that was signed" in verify().stderr
