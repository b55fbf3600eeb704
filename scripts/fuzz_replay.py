"""Targets of scripts/fuzz.py that run whole commands: a damaged recording through every verb that replays, in every format."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from kubectl_genainet.assets import recordings
from kubectl_genainet.cli import cli
from tests.unit.timeline.recorded import two_incidents
from tests.unit.timeline.recorded import write as write_history

_BUNDLES = (
    recordings() / "policy-service-port.gnb",
    *(
        Path(__file__).parents[1] / f"tests/golden/bundles/{name}.gnb"
        for name in ("mtu-blackhole", "drops-policy-drop", "dns-timeout", "no-endpoints")
    ),
)
_RECORDS_OF_A_KIND = 12
_LONGEST_RECORD = 6_000  # longer are rulesets: targets of their own
_PAGE = object()
_COMMANDS = tuple(
    (*arguments, *output)
    for arguments, outputs in (
        (("trace", "svc/my-llama-svc"), ("tree", "wide", "markdown", "json", "yaml", "name", _PAGE)),
        (("drops", "-A"), ("table", "wide", "markdown", "json", "name", _PAGE)),
        (("dns", "-A"), ("table", "wide", "markdown", "json", _PAGE)),
        (("diagnose", "svc/my-llama-svc"), ("text", "markdown", "json", _PAGE)),
        (("rules",), ("table", "tree", "markdown", "json", _PAGE)),
        (("rules", "svc/my-llama-svc"), ("wide",)),
        (("timeline", "svc/my-llama-svc"), ("text", "markdown", "json", _PAGE)),
        (("doctor", "-A"), ("wide", "json", "html", "sarif")),
        (("fabric",), ("table", "json")),
        (("explain", "deploy/rag-app", "svc/my-llama-svc"), ("text", "json", "yaml")),
        (("matrix",), ("table", "json", "html")),
        (("trace",), ("go-template={{.verdict}}",)),
    )
    for output in ((("-o", o) if isinstance(o, str) else ("--report",)) for o in outputs)
)


def replay(data: bytes) -> None:
    """One command of _COMMANDS over the recording: which one depends on the data, and is the same the next time."""
    arguments = list(_COMMANDS[zlib.crc32(data) % len(_COMMANDS)])
    with TemporaryDirectory() as folder:
        bundle = Path(folder) / "damaged.gnb"
        bundle.write_bytes(gzip.compress(data, 1))
        if arguments[-1] == "--report":
            arguments.append(f"{folder}/page.html")
        run_command([*arguments, "--from", str(bundle)])


def run_command(arguments: list[str]) -> None:
    """The command with its output thrown away. What a user would see as a message is no failure."""
    output = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        contextlib.suppress(click.ClickException),
    ):
        cli.main(arguments, prog_name="kubectl genainet", standalone_mode=False)
        output.flush()


def seeds() -> list[bytes]:
    """Short recordings: of each kind of record a few."""
    recorded = [gzip.decompress(path.read_bytes()) for path in _BUNDLES]
    with TemporaryDirectory() as folder:
        history = Path(folder) / "history.gnb"
        write_history(str(history), two_incidents())
        recorded.append(gzip.decompress(history.read_bytes()))
    return [_shortened(text.splitlines()) for text in recorded]


def _shortened(lines: list[bytes]) -> bytes:
    count: Counter[bytes] = Counter()
    kept = lines[:2]
    for line in lines[2:]:
        kind = line[:20]
        count[kind] += 1
        if count[kind] <= _RECORDS_OF_A_KIND and len(line) <= _LONGEST_RECORD:
            kept.append(line)
    return b"\n".join(kept)
