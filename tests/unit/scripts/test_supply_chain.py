"""What is shipped is pinned, listed and made the same way twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import provenance, sbom

ROOT = Path(__file__).parents[3]


def test_every_wheel_of_the_image_is_pinned_with_its_hashes() -> None:
    text = (ROOT / "daemonset/requirements.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[0-9.]+ +--hash=sha256:[0-9a-f]{64}", line), line
    assert "--require-hashes" in (ROOT / "scripts/build-image.sh").read_text()
    assert "pip install --no-index --no-deps" in dockerfile()  # of these, and nothing else


def test_an_sbom_lists_what_is_installed_and_is_the_same_twice() -> None:
    command = [sys.executable, str(ROOT / "scripts/sbom.py")]
    once, again = (subprocess.run(command, capture_output=True, check=True, timeout=60).stdout for _ in range(2))
    assert once == again
    found = json.loads(once)
    names = {package["name"] for package in found["packages"]}
    assert found["spdxVersion"] == "SPDX-2.3" and {"kubectl-genainet", "msgspec", "h11"} <= names
    assert len({package["SPDXID"] for package in found["packages"]}) == len(found["packages"])


def test_an_sbom_lists_what_is_imported_of_two_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name, version in (("venv", "Some.Name", "2"), ("debian", "some-name", "1"), ("debian", "a-name", "3")):
        metadata = tmp_path / folder / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "venv"), str(tmp_path / "debian")])
    assert sbom.python_packages() == [("a-name", "3", "NOASSERTION"), ("some-name", "2", "NOASSERTION")]


def test_the_images_packages_are_in_it() -> None:
    debian = sbom.debian_packages(["python3=3.11.2-1+b1\n", "iptables=1.8.9-2", ""])
    found = sbom.document([("kubectl-genainet", "0.1.0", "Apache-2.0")], debian, 0)
    locators = [package["externalRefs"][0]["referenceLocator"] for package in found["packages"]]
    assert locators == [
        "pkg:pypi/kubectl-genainet@0.1.0",
        "pkg:deb/debian/iptables@1.8.9-2",
        "pkg:deb/debian/python3@3.11.2-1+b1",
    ]
    assert found["creationInfo"]["created"] == "1970-01-01T00:00:00Z"


def dockerfile() -> str:
    return (ROOT / "daemonset/Dockerfile").read_text()


def test_the_image_is_built_on_a_base_by_digest_and_packages_of_one_time() -> None:
    base = re.search(r"^ARG BASE=(\S+)$", dockerfile(), re.MULTILINE)
    snapshot = re.search(r"^ARG SNAPSHOT=(\d{8})T\d{6}Z$", dockerfile(), re.MULTILINE)
    assert base and re.search(r"@sha256:[0-9a-f]{64}$", base[1])
    assert snapshot and f"-{snapshot[1]}-" in base[1]  # of the same day: no package is to be made older
    assert re.findall(r"^FROM (\S+)", dockerfile(), re.MULTILINE) == ["${BASE}"] * 3
    updates = [step for step in re.split(r"^(?=[A-Z]+ )", dockerfile(), flags=re.MULTILINE) if "apt-get update" in step]
    assert len(updates) == 3 and all(step.startswith('RUN apt-snapshot "$SNAPSHOT"') for step in updates)


@pytest.mark.parametrize("time", ["20260824T000000Z", ""])
def test_a_snapshot_is_the_only_source_of_packages(tmp_path: Path, time: str) -> None:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "apt/sources.list.d/debian.sources").write_text("Types: deb\n")
    (tmp_path / "os-release").write_text("VERSION_CODENAME=bookworm\n")
    environment = {**os.environ, "ETC": str(tmp_path)}
    subprocess.run(["sh", str(ROOT / "daemonset/apt-snapshot"), time], env=environment, check=True, timeout=10)
    written = {p.name: p.read_text() for p in (tmp_path / "apt").rglob("*") if p.is_file()}
    if not time:
        assert written == {"debian.sources": "Types: deb\n"}
        return
    assert [line.split(" ", 2)[2] for line in written.pop("sources.list").splitlines()] == [
        f"http://snapshot.debian.org/archive/debian/{time} bookworm main",
        f"http://snapshot.debian.org/archive/debian/{time} bookworm-updates main",
        f"http://snapshot.debian.org/archive/debian-security/{time} bookworm-security main",
    ]
    assert written == {}


@pytest.fixture
def build_image(tmp_path: Path) -> Callable[..., dict[str, list[list[str]]]]:
    """Runs the script, with an engine and a pip that only say what they were asked: each one's calls."""
    for name in ("podman", "docker", "python3"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$@" >>"$SAID/${0##*/}.said"\n')
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "checkout/scripts/build-image.sh"
    script.parent.mkdir(parents=True)
    script.write_text((ROOT / "scripts/build-image.sh").read_text())
    (tmp_path / "checkout/daemonset").symlink_to(ROOT / "daemonset")

    def run(*arguments: str, engine: str = "podman") -> dict[str, list[list[str]]]:
        settings = {"CONTAINER_ENGINE": str(tmp_path / engine), "SAID": str(tmp_path), "SOURCE_DATE_EPOCH": "7"}
        environment = {**os.environ, **settings, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["bash", str(script), *arguments], env=environment, check=True, timeout=30)
        return {p.stem: [line.split() for line in p.read_text().splitlines()] for p in tmp_path.glob("*.said")}

    return run


@pytest.mark.parametrize(
    ("arguments", "pins"),
    [
        ((), ["--timestamp", "7"]),
        (("--base", "b@sha256:1"), ["--build-arg", "BASE=b@sha256:1", "--build-arg", "SNAPSHOT="]),
        (("--snapshot", "T"), ["--build-arg", "SNAPSHOT=T", "--timestamp", "7"]),
        (("--base", "b", "--snapshot", "T"), ["--build-arg", "BASE=b", "--build-arg", "SNAPSHOT=T"]),
    ],
)
def test_what_is_pinned_is_so_unless_another_base_is_given(
    build_image: Callable[..., dict[str, list[list[str]]]], arguments: tuple[str, ...], pins: list[str]
) -> None:
    (said,) = build_image(*arguments)["podman"]
    assert said[said.index("--platform") + 2 : -1] == pins


@pytest.mark.parametrize(("engine", "name"), [("podman", "--manifest"), ("docker", "--tag")])
def test_an_image_of_several_platforms_has_the_wheels_of_each(
    build_image: Callable[..., dict[str, list[list[str]]]], engine: str, name: str
) -> None:
    calls = build_image("--platform", "linux/amd64,linux/arm64", "--tag", "r", engine=engine)
    ((_, *said),) = calls[engine]
    assert said[:4] == [name, "r", "--platform", "linux/amd64,linux/arm64"]
    downloads = [call for call in calls["python3"] if "download" in call]
    wheels = [(Path(call[call.index("--dest") + 1]).name, call[call.index("--platform") + 1]) for call in downloads]
    assert wheels == [("amd64", "manylinux2014_x86_64"), ("arm64", "manylinux2014_aarch64")]
    assert "COPY wheels/all wheels/${TARGETARCH} /wheels/" in dockerfile()


def test_the_release_is_built_of_pinned_wheels() -> None:
    entries = re.split(r"\n(?=[a-z])", (ROOT / "scripts/release-requirements.txt").read_text())[1:]
    names = {re.match(r"[a-z0-9._-]+", entry)[0] for entry in entries}  # type: ignore[index]
    assert {"click", "msgspec", "kubernetes", "pyinstaller", "hatchling"} <= names
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", entry), entry
    installs = re.findall(r'^"\$\{pip\[@\]\}" (.*)$', (ROOT / "scripts/build-release.sh").read_text(), re.MULTILINE)
    assert installs == ["--require-hashes -r scripts/release-requirements.txt", "--no-build-isolation ."]


def test_a_wheel_is_the_same_twice(tmp_path: Path) -> None:
    sums = []
    for number in ("1", "2"):
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(tmp_path / number),
            ".",
        ]
        subprocess.run(
            command, cwd=ROOT, check=True, timeout=300, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        )
        (wheel,) = (tmp_path / number).glob("*.whl")
        sums.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert sums[0] == sums[1]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of one archive, signed; beside it `signers`, `key` and `other`, which nobody believes."""
    for name in ("key", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True, timeout=30)
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    (tmp_path / "signers").write_text(f'# comment\nrelease namespaces="kubectl-genainet" {public}\n')
    folder = tmp_path / "release"
    folder.mkdir()
    archive = folder / "kubectl-genainet-linux-amd64.tar.gz"
    archive.write_bytes(b"archive")
    said = provenance.statement([archive], commit="c" * 40, source="s", epoch="1")
    (folder / "kubectl-genainet-linux-amd64.provenance.json").write_text(json.dumps(said, indent=1))
    sign(folder, "key")
    return folder


def sign(folder: Path, key: str) -> None:
    script = str(ROOT / "scripts/sign-release.sh")
    subprocess.run(["bash", script, str(folder), str(folder.parent / key)], check=True, timeout=30)


def verify(folder: Path, signers: Path) -> str:
    """What the script says against the release; "" where it is verified."""
    script = str(ROOT / "scripts/verify-release.sh")
    done = subprocess.run(
        ["bash", script, str(folder), str(signers)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode == 0) is done.stdout.startswith("verified: ")
    return done.stderr if done.returncode else ""


def test_a_release_is_verified_by_its_signature_without_a_network(release: Path) -> None:
    signers = release.parent / "signers"
    assert verify(release, signers) == ""
    assert "names no key" in verify(release, ROOT / "scripts/release-signers")  # until the maintainers have one
    (release / "kubectl-genainet-linux-amd64.provenance.json").unlink()  # who needs only the archive
    assert verify(release, signers) == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "kubectl-genainet-linux-amd64.tar.gz").write_bytes(b"other"), "not the one"),
        (lambda folder: (folder / "more.tar.gz").write_bytes(b"other"), "not in SHA256SUMS"),
        (lambda folder: (folder / "kubectl-genainet-linux-amd64.tar").write_bytes(b"other"), "not in SHA256SUMS"),
        (lambda folder: (folder / ".hidden.tar.gz").write_bytes(b"other"), "not in SHA256SUMS"),
        (lambda folder: sign(folder, "other"), "not signed"),
        (lambda folder: (folder / "SHA256SUMS").write_text("0" * 64 + "  a\n"), "not signed"),
        (lambda folder: (folder / "SHA256SUMS.sig").unlink(), "belong beside"),
    ],
)
def test_a_release_that_was_changed_is_refused(release: Path, change: Callable[[Path], object], says: str) -> None:
    change(release)
    assert says in verify(release, release.parent / "signers")


def test_a_provenance_of_another_archive_is_refused(release: Path) -> None:
    (release / "kubectl-genainet-linux-amd64.tar.gz").write_bytes(b"other")
    sign(release, "key")
    assert "another archive" in verify(release, release.parent / "signers")


def test_a_provenance_says_what_was_built_from_what(tmp_path: Path) -> None:
    archives = [tmp_path / f"kubectl-genainet-linux-{machine}.tar.gz" for machine in ("amd64", "arm64")]
    for archive in archives:
        archive.write_bytes(archive.name.encode())
    said = provenance.statement(archives, commit="c" * 40, source="https://example.invalid/repository", epoch="17")
    assert said["subject"] == [
        {"name": archive.name, "digest": {"sha256": hashlib.sha256(archive.name.encode()).hexdigest()}}
        for archive in archives
    ]
    dependencies = {d["uri"]: d["digest"] for d in said["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert dependencies["git+https://example.invalid/repository"] == {"gitCommit": "c" * 40}
    built = said["predicate"]["buildDefinition"]["externalParameters"]
    assert (built["commit"], built["SOURCE_DATE_EPOCH"]) == ("c" * 40, "17")
    for name in ("scripts/release-requirements.txt", "daemonset/requirements.txt", "daemonset/Dockerfile"):
        pinned = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
        assert dependencies[f"file:{name}"] == {"sha256": pinned}
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"


def test_a_provenance_is_of_the_commit_that_is_checked_out_and_of_no_changed_one(tmp_path: Path) -> None:
    for name in ("scripts/provenance.py", *provenance.PINNED):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.invalid")
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    def said() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", str(tmp_path / "scripts/provenance.py"), str(ROOT / "LICENSE")]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)

    git("init", "--quiet")
    commits = []
    for number in range(2):
        (tmp_path / "source.py").write_text(str(number))
        git("add", ".")
        git("commit", "--quiet", "--message", "one")
        commits.append(git("rev-parse", "HEAD"))
        built = json.loads(said().stdout)["predicate"]["buildDefinition"]
        assert built["externalParameters"]["commit"] == commits[-1]
        assert built["resolvedDependencies"][0]["digest"] == {"gitCommit": commits[-1]}
        assert built["externalParameters"]["SOURCE_DATE_EPOCH"] == "1700000000"
    assert len(set(commits)) == 2
    for changed in ("source.py", "put-beside-it.py"):
        (tmp_path / changed).write_text("evil")
        refused = said()
        assert refused.returncode == 1 and refused.stdout == "" and changed in refused.stderr
        git("reset", "--quiet", "--hard")
