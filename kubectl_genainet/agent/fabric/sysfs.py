"""RDMA devices as /sys/class/infiniband shows them.

Source: Documentation/ABI/stable/sysfs-class-infiniband. Counters differ by driver: all that are numbers are taken.
"""

from __future__ import annotations

import re
from pathlib import Path

from kubectl_genainet.model.fabric import RdmaDevice, RdmaPort
from kubectl_genainet.model.units import whole_number

CLASS = Path("/sys/class/infiniband")
MAX_DEVICES = 256  # a p5.48xlarge has 32
MAX_COUNTERS = 200  # of a port
MAX_GIDS = 64
_TEXT = 128
_NAME = re.compile(r"[\w.\-]{1,63}")


def read_devices(root: Path = CLASS) -> tuple[RdmaDevice, ...]:
    """Those that the caller's /sys has; empty where there are none."""
    return tuple(RdmaDevice(name=path.name, ports=_ports(path / "ports")) for path in _entries(root)[:MAX_DEVICES])


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return []


def _ports(folder: Path) -> tuple[RdmaPort, ...]:
    return tuple(_port(path) for path in _entries(folder)[:16] if path.name.isdecimal())


def _port(path: Path) -> RdmaPort:
    counters: dict[str, int] = {}
    for group in ("counters", "hw_counters"):
        for file in _entries(path / group)[:MAX_COUNTERS]:
            value = whole_number(_text(file))
            if value is not None:
                counters[file.name] = value
    gids = [_text(file) for file in sorted(_entries(path / "gids"), key=lambda f: f.name.zfill(4))[:MAX_GIDS]]
    return RdmaPort(
        number=int(path.name),
        state=_text(path / "state").rpartition(": ")[2],
        link_layer=_text(path / "link_layer"),
        rate=_text(path / "rate"),
        gids=tuple(gid for gid in gids if gid.strip("0:")),
        counters=counters,
    )


def _text(path: Path) -> str:
    """The first line; "" where it can't be read (an index of gids that is not set)."""
    try:
        with path.open(errors="replace") as file:
            return file.readline(_TEXT).strip()
    except OSError:
        return ""
