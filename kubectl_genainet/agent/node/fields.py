"""What the agent takes out of text that a container wrote: words of a known form."""

from __future__ import annotations

import re

from kubectl_genainet.model.packet import parse_address

_DOMAIN = re.compile(r"[A-Za-z0-9_.-]{1,254}")
_OPTION = re.compile(r"[a-z][a-z0-9-]{0,31}(:[0-9]{1,9})?")
_ZONE = re.compile(r"%[A-Za-z0-9_.-]{1,15}")
_MOST_WORDS = 64


def resolv_conf_fields(text: str) -> str:
    """The fields of a resolv.conf (resolv.conf(5)) as a resolv.conf; nothing else of the file goes on.

    It may be any file that a container put there, or one that is not meant to be read.
    """
    lines = []
    for line in text.splitlines()[:_MOST_WORDS]:
        key, *values = line.split() or [""]
        if key == "nameserver":
            kept = [value for value in values[:1] if _is_server(value)]
        elif key in ("search", "domain"):
            kept = [value for value in values[:_MOST_WORDS] if _DOMAIN.fullmatch(value)]
        elif key == "options":
            kept = [value for value in values[:_MOST_WORDS] if _OPTION.fullmatch(value)]
        else:
            continue
        if kept:
            lines.append(f"{key} {' '.join(kept)}\n")
    return "".join(lines)


def _is_server(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        parse_address(address)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(f"%{zone}") is not None
