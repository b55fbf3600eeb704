"""Hides the names that are asked for: all labels but those of the public suffix become keyed hashes.

Labels are hashed one by one, so that names that end alike still end alike, and the same name is the same on all nodes
of a run. The key is made for one run and written nowhere: without it, guessing names does not help.
Public suffixes are the Public Suffix List's (publicsuffix.org), of which the library publicsuffixlist brings a copy;
reverse zones (RFC 1035 3.5, RFC 3596) keep their last two labels.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from functools import lru_cache

import msgspec
from publicsuffixlist import PublicSuffixList

from kubectl_genainet.model.dns import Answer, DnsMessage, Question

KEY_BYTES = 16
_REVERSE = ("in-addr.arpa", "ip6.arpa")
_ADDRESSES = {"A", "AAAA"}


def new_key() -> str:
    """A key for one run, in hexadecimal."""
    return secrets.token_hex(KEY_BYTES)


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False)


class Redactor:
    """Hashes names and what else in a message may name something. The same key gives the same result.

    Of a name below one of the `search` domains the part before is hashed as it would be alone, so that a lookup's
    candidates can still be told to belong together.
    """

    def __init__(self, key: str, search: Iterable[str] = ()) -> None:
        self._search = frozenset(search)
        self._key = bytes.fromhex(key)
        self._list = _suffixes()
        self.name = lru_cache(maxsize=65536)(self._name)

    def _label(self, label: str) -> str:
        digest = hashlib.blake2s(label.lower().encode(), key=self._key, digest_size=5).hexdigest()
        return f"x{digest}"

    def _name(self, name: str) -> str:
        """An absolute or relative name in presentation format."""
        dot = "." if name.endswith(".") and name != "." else ""
        labels = name.rstrip(".").split(".") if name != "." else []
        for i in range(1, len(labels)):
            if ".".join(labels[i:]).lower() in self._search:
                return f"{self._hashed(labels[:i])}.{self._hashed(labels[i:])}{dot}"
        return self._hashed(labels) + dot or "."

    def _hashed(self, labels: list[str]) -> str:
        plain = ".".join(labels).lower()
        if plain.endswith(_REVERSE):
            kept = 2
        else:
            # A single label is a name below a search domain ("app"), not a public suffix that happens to be called so.
            suffix = self._list.publicsuffix(plain) if plain.isascii() and len(labels) > 1 else None
            kept = len(suffix.split(".")) if suffix else 0
        cut = max(0, len(labels) - kept)
        return ".".join([*map(self._label, labels[:cut]), *labels[cut:]])

    def message(self, message: DnsMessage) -> DnsMessage:
        """The message with every name hashed; answers other than addresses are hashed whole."""
        questions = tuple(
            Question(self.name(question.name), question.type, question.klass) for question in message.questions
        )
        answers = message.answers and tuple(self._answer(a) for a in message.answers)
        return msgspec.structs.replace(message, questions=questions, answers=answers)

    def _answer(self, answer: Answer) -> Answer:
        data = answer.data
        if answer.type == "CNAME":
            data = tuple(self.name(d) for d in data)
        elif answer.type not in _ADDRESSES:
            data = tuple(self._label(d) for d in data)
        return Answer(self.name(answer.name), answer.type, answer.ttl, data)
