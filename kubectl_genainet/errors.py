"""How a command ends: its exit status, and the errors that reach a user (what is wrong, and what to do)."""

from __future__ import annotations

from enum import IntEnum

import msgspec

# What decoding JSON or MessagePack that somebody else wrote may raise: damaged, not UTF-8 or with lone surrogates, too deep.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)


class ExitStatus(IntEnum):
    """How a command ends. FAILED is the command itself; TIMED_OUT is the end of the time with nothing seen; INTERRUPTED is
    Ctrl-C before there was a result."""

    OK = 0
    FOUND = 1
    FAILED = 2
    TIMED_OUT = 124
    INTERRUPTED = 130

    def with_failures(self, failed: bool) -> ExitStatus:
        """The status of a run that a node was missing from: it has found neither that nothing is wrong nor that there is
        nothing to see."""
        return ExitStatus.FAILED if failed and self in (ExitStatus.OK, ExitStatus.TIMED_OUT) else self


class GenainetError(Exception):
    """The command itself failed (exit status 2).

    `message` says what is wrong and with which object; `hint` says what to do about it.
    """

    exit_code = ExitStatus.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(GenainetError):
    """An object, a file or an argument is not what it must be.

    `source` is the file (and document) it came from, `obj` the object ("NetworkPolicy default/x"),
    `field` the path to the value inside the object ("spec.ingress[0].ports[0].endPort").
    """

    def __init__(self, problem: str, *, source: str = "", obj: str = "", field: str = "", hint: str = "") -> None:
        where = ": ".join(part for part in (source, obj, field) if part)
        super().__init__(f"{where}: {problem}" if where else problem, hint)
        self.problem, self.source, self.obj, self.field = problem, source, obj, field
