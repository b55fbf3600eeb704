"""Numbers in text that somebody else wrote."""

from __future__ import annotations

MOST = (1 << 63) - 1  # what a record can carry


def whole_number(text: str) -> int | None:
    """A decimal number of ASCII digits up to MOST; None for anything else ("²" and "٣" are digits to str.isdigit)."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    return number if number <= MOST else None
