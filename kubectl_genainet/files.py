"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from kubectl_genainet.errors import GenainetError


def write_whole(path: str | Path, content: bytes, what: str) -> None:
    """Replaces the file in one step. Raises GenainetError, naming `what`, where it can't; a file that was there stays then.

    What is no plain file (a pipe, a terminal) is written to as it is.
    """
    place = Path(os.path.realpath(path))
    try:
        if place.exists() and not place.is_file():
            place.write_bytes(content)
        else:
            _replace(place, content)
    except OSError as error:
        raise GenainetError(f"{what} {path} can't be written: {error.strerror}") from None


def _replace(place: Path, content: bytes) -> None:
    with contextlib.ExitStack() as undo:
        descriptor, part = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        undo.callback(os.unlink, part)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(part, place.stat().st_mode & 0o7777 if place.exists() else 0o666 & ~_umask())
        os.replace(part, place)
        undo.pop_all()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
