"""Saved dumps of a node's rules from files and folders: a sosreport, or any folder in which dumps lie among other files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.forms import sections_of

MAX_FILES = 20_000
MAX_BYTES = 64 << 20  # of one file
_TABLE_NAMED = re.compile(r"-t[_ ]security(?![a-z])")  # sosreport: iptables_-t_security_-nvL


def folder_dumps(folder: Path) -> list[RulesetDump]:
    """Every dump in a folder. Raises GenainetError where there is none.

    Of one family's rules that are there both as iptables-save and as a listing (iptables -L), the listing is left out: it
    says less of the same rules. A dump that is there twice is read once.
    """
    saved: list[tuple[str, str]] = []
    listed: list[tuple[str, str]] = []
    for path in _files(folder):
        text = _text_of(path)
        for form, source, body in _dumps_in(text):
            entry = (source, _of_named_table(path.name, body))
            (listed if form in ("listing", "specs") else saved).append(entry)
    families = {source.partition("-")[0] for source, _ in saved}
    dumps = saved + [entry for entry in listed if entry[0].partition("-")[0] not in families]
    unique = dict.fromkeys(dumps)
    if not unique:
        raise GenainetError(
            f"no dump of rules was found in {folder}",
            hint="Files are told by their content: iptables-save, nft, ipset, ipvsadm.",
        )
    return [RulesetDump(node="", t_ns=0, source=source, text=body) for source, body in unique]


def _files(folder: Path) -> Iterator[Path]:
    count = 0
    for path in sorted(folder.rglob("*")):
        if count >= MAX_FILES:
            return
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_BYTES:
            count += 1
            yield path


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            if b"\0" in head:
                return ""
            return (head + file.read()).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _dumps_in(text: str) -> Iterator[tuple[str, str, str]]:
    """(form, source, text) of a file's dumps; none for a file that is something else."""
    if not text.strip():
        return
    listing = re.search(r"^Chain \S+ \((?:policy |\d+ references)", text, re.M) is not None
    specs = (
        not listing and re.search(r"^\*\w+$", text, re.M) is None and re.search(r"^-[PNA] \S+", text, re.M) is not None
    )
    try:
        for source, body in sections_of(text):
            is_iptables = source.startswith(("iptables", "ip6tables"))
            yield "listing" if is_iptables and listing else "specs" if is_iptables and specs else "dump", source, body
    except InputError:
        return


def _of_named_table(name: str, body: str) -> str:
    """The security table's chains are named as the filter table's: the file's name tells them apart."""
    return body.replace("*filter\n", "*security\n", 1) if _TABLE_NAMED.search(name) else body
