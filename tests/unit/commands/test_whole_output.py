"""A full disk: half an answer never looks like a whole one, and a file that was there is not lost for it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_genainet.assets import recordings
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.files import write_whole
from tests.unit.commands.test_hostile_output import BUNDLES, RECORDED, explained, forms_of

BUNDLE = str(recordings() / "policy-service-port.gnb")
ROOM = 200  # bytes that a file may have: less than any of the answers


def run(*arguments: str, output: Path, room: int = ROOM, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    def no_more() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    with output.open("w") as file:
        return subprocess.run(
            [sys.executable, "-B", "-m", "kubectl_genainet", *arguments],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            preexec_fn=no_more,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )


@pytest.mark.parametrize("arguments", ["trace svc/my-llama-svc -o tree", "doctor -o html", "--help"])
def test_an_answer_that_is_not_written_whole_is_a_failure(arguments: str, tmp_path: Path) -> None:
    source = () if arguments == "--help" else ("--from", BUNDLE)
    done = run(*arguments.split(), *source, output=tmp_path / "out")
    assert (tmp_path / "out").stat().st_size <= ROOM
    assert done.returncode == 2
    assert "the output can't be written: File too large" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", RECORDED)
def test_on_a_full_disk_no_form_of_an_answer_is_taken_for_one(verb: str, tmp_path: Path) -> None:
    """A file system that has no byte left, and for --report one whose files may have 100: the page that was there stays."""
    page = tmp_path / "page.html"
    page.write_text("as it was")
    ends = explained(RECORDED[verb]) if verb == "explain" else ["-A"]
    source = ["--from", str(BUNDLES / f"{RECORDED[verb]}.gnb")]
    output = {form: ["--report", str(page)] if form == "report" else ["-o", form] for form in forms_of(verb)}
    command = [sys.executable, "-m", "tests.unit.commands.full_disk"]
    asked = json.dumps({form: [verb, *ends, *source, *options] for form, options in output.items()})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=300, check=True)
    ended = json.loads(done.stdout)
    assert ended.keys() == output.keys()
    for form, (status, said) in ended.items():
        reason = f"{page} can't be written: File too large" if form == "report" else "No space left on device"
        assert (status, reason in said, "Traceback" in said) == (2, True, False), (form, status, said)
    assert page.read_text() == "as it was" and [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_part_that_an_unbuffered_python_takes_for_all_is_a_failure(
    tmp_path: Path,
) -> None:
    done = run("matrix", "-o", "html", "--from", BUNDLE, output=tmp_path / "out", unbuffered="1")
    assert (done.returncode, (tmp_path / "out").stat().st_size) == (2, ROOM)


@pytest.mark.parametrize("option", ["diagnose svc/my-llama-svc --report", "doctor --write-baseline"])
def test_a_file_that_does_not_fit_leaves_the_old_one(option: str, tmp_path: Path) -> None:
    kept = tmp_path / "file"
    kept.write_text("as it was")
    done = run(*option.split(), str(kept), "--from", BUNDLE, "-o", "json", output=Path(os.devnull), room=100)
    assert done.returncode == 2
    assert f"{kept} can't be written: File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and kept.read_text() == "as it was"


def test_a_new_file_is_whole_or_not_there(tmp_path: Path) -> None:
    arguments = ("doctor", "--from", BUNDLE, "-o", "json", "--write-baseline", str(tmp_path / "file"))
    assert run(*arguments, output=Path(os.devnull), room=100).returncode == 2
    assert list(tmp_path.iterdir()) == []
    write_whole(tmp_path / "file", b"whole", "the file")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_messages_that_cant_be_written_change_no_status(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "kubectl_genainet", "doctor", "--manifests", str(tmp_path / "nothing")]
        assert subprocess.run(command, stdout=full, stderr=full, timeout=60, check=False).returncode == 2


def test_a_written_file_keeps_its_mode_its_link_and_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new", "the page")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
    write_whole("/dev/null", b"x", "the page")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(GenainetError, match="can't be written: No such file"):
        write_whole(tmp_path / "no" / "folder", b"x", "the page")


@pytest.mark.parametrize(
    "arguments", ["--help", "doctor --help", "doctor --list", "trace svc/my-llama-svc", "doctor -o json", "matrix"]
)
def test_a_reader_that_has_gone_is_no_failure(arguments: str) -> None:
    """`| head`: it may be click that writes, rich, or the interpreter at its end."""
    source = () if "help" in arguments or "list" in arguments else ("--from", BUNDLE)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "kubectl_genainet", *arguments.split(), *source]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr and "Traceback" not in done.stderr
