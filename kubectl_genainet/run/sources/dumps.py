"""Saved dumps of a node's rules from files and folders: a sosreport, or any folder in which dumps lie among other files."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path

from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.dumps.forms import dumps_of
from kubectl_genainet.proxy.dumps.posted import decoded

MAX_FILES = 20_000
MAX_BYTES = 64 << 20  # of one file
# sosreport's file names are the commands: iptables_-t_security_-nvL, ip_netns_exec_NAME_iptables-save
_OTHER_NAMESPACE = re.compile(r"^ip_netns_exec_|^nsenter_")


def folder_dumps(folder: Path) -> list[RulesetDump]:
    """Every dump of the node in a folder. Raises GenainetError where there is none.

    Rules of other network namespaces (a sosreport has them) are not the node's and left out.
    """
    dumps: list[RulesetDump] = []
    for path in _files(folder):
        if _OTHER_NAMESPACE.match(path.name) is None:
            dumps += _dumps_in(path)
    if not dumps:
        raise GenainetError(
            f"no dump of rules was found in {folder}",
            hint="Files are told by their content: iptables-save, nft, ipset, ipvsadm.",
        )
    return list({(dump.source, dump.text): dump for dump in dumps}.values())


def _files(folder: Path) -> Iterator[Path]:
    count = 0
    for path in sorted(folder.rglob("*")):
        if count >= MAX_FILES:
            return
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_BYTES:
            count += 1
            yield path


def _dumps_in(path: Path) -> list[RulesetDump]:
    """The dumps in a file; none in one that is something else. What the name says of the command is used."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            if b"\0" in head and not head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                return []
            text = decoded(head + file.read())
        return dumps_of(f"$ {path.name.replace('_', ' ')}\n{text}") if text.strip() else []
    except (OSError, InputError):
        return []
