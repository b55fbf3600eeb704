"""JSON of the API server that nests deeper than anything a Kubernetes object needs.

Who may create an object of a kind without a schema decides how deep it nests; the API server takes ten thousand levels. One
such object must not keep the others of its list from being read.
"""

from __future__ import annotations

import re

MAX_DEPTH = 200  # of lists and mappings in each other, within an object
TOO_DEEP = "(nested too deep: not read)"  # in the place of what is nested deeper

_QUOTED = f'"{TOO_DEEP}"'.encode()
# A string, even one without an end, or a bracket. Possessive: no string is looked at twice.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def without_deep_values(text: bytes, depth: int) -> bytes:
    """The JSON with TOO_DEEP in the place of each list or mapping that is `depth` levels deep."""
    kept: list[bytes] = []
    begin = level = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case b"[" | b"{":
                level += 1
                if level == depth + 1:
                    kept += (text[begin : token.start()], _QUOTED)
            case b"]" | b"}":
                level -= 1
                if level == depth:
                    begin = token.end()
    if level <= depth:
        kept.append(text[begin:])
    return b"".join(kept)
