"""Numbers, quantities, durations and times in text: as Kubernetes and Go write them, or anybody else."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

# In a record: since the node started (negative in what an earlier start recorded), or since 1970, up to the year 2116. What is
# later is damage, and would be no date either.
Nanoseconds = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]

MOST = (1 << 63) - 1  # what a record can carry
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SUFFIX = {**_DECIMAL, **{suffix: 2.0 ** (10 * power) for power, suffix in enumerate(_BINARY, start=1)}}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([eE][+-]?[0-9]+)|([A-Za-z]*))")
_DURATION = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 64  # characters of a duration
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def whole_number(text: str) -> int | None:
    """A decimal number of ASCII digits up to MOST; None for anything else ("²" and "٣" are digits to str.isdigit)."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    return number if number <= MOST else None


def quantity(value: Any) -> float:
    """A resource quantity in its unit (cores, bytes, devices): "100n" is 1e-7, "1.5Gi" 1610612736; 0 for what is none.

    Source: apimachinery/pkg/api/resource, "Quantity".
    """
    match = _QUANTITY.fullmatch(str(value))
    if not match:
        return 0.0
    number, exponent, suffix = match.groups()
    if exponent:
        return float(number + exponent)
    return float(number) * _SUFFIX.get(suffix, 0.0)


def rate_text(bytes_s: float | None) -> str:
    """A rate as network people say it: bits a second."""
    if bytes_s is None:
        return "?"
    bits = 8 * bytes_s
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits >= size:
            return f"{bits / size:.1f} {unit}"
    return f"{bits:.0f} bit/s"


def seconds(value: Any) -> float | None:
    """A Go or Gateway API duration ("1m30s", "500ms") in seconds; a plain number is seconds; None for what is neither.

    Source: time.ParseDuration of Go.
    """
    text = str(value)
    if len(text) > _LONGEST:  # digits without end would cost their square
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(float(number) * _DURATION[unit] for number, unit in parts))


def rfc3339(realtime_ns: int | None) -> str:
    """A wall-clock time in ns since 1970 as RFC 3339 in UTC, to the microsecond; "" for None and for what is no time."""
    if not realtime_ns or realtime_ns < 0:
        return ""
    try:
        moment = datetime.fromtimestamp(realtime_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{realtime_ns % 1_000_000_000 // 1000:06d}Z"
