"""What the HTML reports share: one page without outside references, every value escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2

from kubectl_genainet.render.text import printable


def asset(name: str) -> str:
    return resources.files("kubectl_genainet.render").joinpath("templates", name).read_text(encoding="utf-8")


def environment() -> jinja2.Environment:
    """Every value is escaped by jinja2, and control and bidi characters are made visible first."""
    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    env.filters["ref"] = str
    env.filters["lines"] = _lines
    return env


def _finalize(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, _Kept) and not hasattr(value, "__html__"):
        return printable(value)
    return value


def _lines(text: str) -> str:
    """A command or YAML: control characters visible, line breaks kept."""
    return _Kept("\n".join(printable(line) for line in text.rstrip("\n").split("\n")))


class _Kept(str):
    """A string whose line breaks `finalize` leaves alone; it is escaped like any other."""

    __slots__ = ()


def source_hash(text: str) -> str:
    """A content security policy source for an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
