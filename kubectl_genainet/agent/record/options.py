"""What a recorder may take, and where it keeps what it records."""

from __future__ import annotations

import msgspec

CPU_PERCENT = 5.0  # of one core


class RecordOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`size` is in bytes, `age_s` how far into the past the recording reaches. Without `dns_names` names are hashed with a key
    that is kept nowhere. `cpu_percent` of one core may be spent, as a trace's budget is."""

    folder: str
    size: int = 256 << 20
    age_s: float = 24 * 3600.0
    dns_names: bool = True
    cpu_percent: float = CPU_PERCENT
