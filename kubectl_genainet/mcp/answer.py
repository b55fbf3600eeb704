"""What a tool answers: the verb's records within a limit of size, the worst kept first, and what found no room."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.mcp.tools import Outcome, Tool
from kubectl_genainet.records import schemas_of
from kubectl_genainet.render.data_text import json_text
from kubectl_genainet.render.text import printable

MAX_WARNINGS = 50
MAX_TEXT = 2000  # characters of a warning or an error


class AnswerStatus(Enum):
    NOTHING_WRONG = "nothing wrong found"
    SOMETHING_FOUND = "something found"
    NOTHING_SEEN = "nothing seen"
    INCOMPLETE = "incomplete"  # a node or a policy is missing from it: see the warnings


_OF_EXIT = {
    ExitStatus.OK: AnswerStatus.NOTHING_WRONG,
    ExitStatus.FOUND: AnswerStatus.SOMETHING_FOUND,
    ExitStatus.TIMED_OUT: AnswerStatus.NOTHING_SEEN,
    ExitStatus.FAILED: AnswerStatus.INCOMPLETE,
}


class ToolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`records` are as `-o json` prints them; `left_out` of them found no room."""

    status: AnswerStatus
    records: list[Any]
    warnings: list[str]
    left_out: int = 0


def shortened(text: str) -> str:
    """An error quotes what it is about, which may be of any length and hold anything: no line of it is its own."""
    text = printable(text)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT} more characters)"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer, and what to do."""

    error: str
    hint: str = ""

    @classmethod
    def of(cls, error: GenainetError) -> Failure:
        return cls(error=error.message, hint=error.hint)

    def __str__(self) -> str:
        return "\n".join(shortened(text) for text in (self.error, self.hint) if text)


def bounded_answer(outcome: Outcome, max_bytes: int) -> ToolAnswer:
    """The outcome in at most about `max_bytes` of JSON: what is wrong and the summaries are kept before what is well."""
    values = list(outcome.records)
    records = [json_text(value).encode() for value in values]
    kept = _kept(values, [len(record) for record in records], max_bytes)
    warnings = list(map(shortened, outcome.warnings))
    if len(warnings) > MAX_WARNINGS:
        warnings = [*warnings[:MAX_WARNINGS], f"{len(warnings) - MAX_WARNINGS} more warnings"]
    left_out = len(records) - len(kept)
    if left_out:
        warnings.append(
            f"{left_out} of {len(records)} records found no room in {max_bytes} bytes: ask for less "
            "(a target, a namespace, a verdict, a node)"
        )
    return ToolAnswer(
        status=_OF_EXIT[outcome.status],
        records=[msgspec.Raw(records[number]) for number in kept],
        warnings=warnings,
        left_out=left_out,
    )


def _kept(values: Sequence[Any], sizes: Sequence[int], max_bytes: int) -> list[int]:
    """Which records fit, in their order."""
    kept, room = [], max_bytes
    for number in sorted(range(len(values)), key=lambda i: (_is_well(values[i]), i)):
        if sizes[number] <= room:
            kept.append(number)
            room -= sizes[number]
    return sorted(kept)


_WELL = {"verdict": ("forwarded", "allow"), "outcome": ("answered", "passed")}


def _is_well(value: Any) -> bool:
    """Whether a record says that one thing is as it should be: those of many are left out first."""
    fields = value if isinstance(value, dict) else msgspec.to_builtins(value)
    if fields.get("findings") or fields.get("drop"):
        return False
    return any(fields.get(name) in good for name, good in _WELL.items())


def output_schema(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's answer: the records' is that of docs/schema.json."""
    lines, definitions = schemas_of({tool.name: tool.records})
    return {
        "type": "object",
        "properties": {
            "status": {"enum": [status.value for status in AnswerStatus]},
            "records": {"type": "array", "items": lines[tool.name]},
            "warnings": {"type": "array", "items": {"type": "string"}},
            "left_out": {"type": "integer", "description": "Records that found no room."},
        },
        "required": ["status", "records", "warnings", "left_out"],
        "$defs": definitions,
    }


def input_schema(tool: Tool) -> dict[str, Any]:
    (reference,), definitions = msgspec.json.schema_components([tool.arguments], ref_template="#/$defs/{name}")
    own: dict[str, Any] = definitions.pop(reference["$ref"].rpartition("/")[2])
    return {**own, "$defs": definitions} if definitions else own
