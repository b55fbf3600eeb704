"""Recorders that a test ends or starves: processes of their own, on a disk of their own.

python -m tests.unit.history.disk fill FOLDER      on a file system that it may fill; prints what it did as JSON
python -m tests.unit.history.disk write FOLDER     as fast as it can, until it is killed; prints a line for each block
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from kubectl_genainet.agent.record.options import RecordOptions
from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.model.events import Event, Hello
from kubectl_genainet.model.node import RulesetDump
from tests.unit.history.recording import MONO, NODE, SECOND, WALL, hello, resent


class Fed:
    """A recorder whose clock this process moves, with something to write in each second."""

    def __init__(self, folder: Path, *, at_s: int = 0, booted: Hello | None = None, up_s: int = 0) -> None:
        self.at_s, self._boot_s = at_s, at_s - up_s
        self._random = random.Random(at_s)
        options = RecordOptions(folder=str(folder), size=64 << 20)
        self.recorder = Recorder(NODE, options, booted or hello(), wall=self.wall, mono=self.mono)

    def wall(self) -> int:
        return WALL + self.at_s * SECOND

    def mono(self) -> int:
        return MONO + (self.at_s - self._boot_s) * SECOND

    def second(self, *records: Event) -> None:
        self.at_s += 1
        for record in (resent(self.at_s - self._boot_s - 0.5, port=30_000 + self.at_s % 20_000), *records):
            self.recorder.take(record)
        self.recorder.tick()

    def incompressible(self, size: int) -> RulesetDump:
        return RulesetDump(node=NODE, t_ns=self.mono(), source="nft", text=self._random.randbytes(size // 2).hex())


def fill(folder: Path) -> None:
    """Ten seconds on a disk with room, thirty on one that is full, twenty with room again."""
    fed = Fed(folder)
    for _ in range(10):
        fed.second()
    written = sorted(path.name for path in folder.glob("*.seg"))
    ballast = folder.parent / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError as error:
            full = error.strerror
    full_at_s = fed.at_s
    for _ in range(30):
        fed.second(fed.incompressible(20_000))
    said = fed.recorder._writer.full
    ballast.unlink()
    room_at_s = fed.at_s
    for _ in range(20):
        fed.second()
    fed.recorder.close()
    print(json.dumps({"disk": full, "writer": said, "full_at_s": full_at_s, "room_at_s": room_at_s, "before": written}))


def write(folder: Path) -> None:
    fed = Fed(folder)
    while True:
        fed.second()
        if fed.at_s % 5 == 0:
            print(fed.at_s, flush=True)


if __name__ == "__main__":
    {"fill": fill, "write": write}[sys.argv[1]](Path(sys.argv[2]))
