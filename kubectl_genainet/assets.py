"""Finds the files that ship beside the code: `probes/` (kernel-side C) and `daemonset/` (deployment)."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def asset_dir(name: str) -> Path:
    """The folder `name` ("probes" or "daemonset"), in an installed wheel or in a checkout.

    Raises FileNotFoundError when neither has it, which means that the installation is damaged.
    """
    for candidate in (_PACKAGE / f"_{name}", _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the folder {name!r} is missing from this installation")


def recordings() -> Path:
    """The folder of bundles that ship with the package: recorded in the lab, for replays where no lab can run."""
    return _PACKAGE / "recordings"
