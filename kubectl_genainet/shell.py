"""Commands that people paste into a shell: what a name brought along is one word of them, and no option."""

from __future__ import annotations

import re
import shlex


def sh(value: object) -> str:
    """A value as one word of a shell command: quoted where a shell would read more into it, and on one line."""
    return shlex.quote(re.sub(r"[\x00-\x1f\x7f\u2028\u2029]", "?", str(value)))


def command(*arguments: str) -> str:
    """A shell command line; arguments that a shell would read otherwise are quoted."""
    return " ".join(map(sh, arguments))


def named(kind: str, name: str) -> str:
    """`KIND NAME`, words of a shell command; `KIND/NAME` where kubectl would take the name for an option ("--all")."""
    return sh(f"{kind}/{name}") if name.startswith("-") else command(kind, name)
