"""Findings that the user has accepted: `--ignore CHECK[:OBJECT]` and the baseline file."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS, InputError
from kubectl_genainet.model.finding import Finding

SCHEMA = 1


class Acceptance(msgspec.Struct, frozen=True):
    """One accepted finding or pattern. `object` is "", NAME, NS/NAME or KIND/NS/NAME and may hold * and ?.

    `field` is the first evidence's field, empty for any. `reason` is for the people who read the file.
    """

    check: str
    object: str = ""
    field: str = ""
    reason: str = ""
    by: str = ""


class Baseline(msgspec.Struct, frozen=True):
    """The baseline file."""

    schema: int
    accepted: tuple[Acceptance, ...]


def parse_ignore(value: str, known: Iterable[str]) -> Acceptance:
    """Reads CHECK[:OBJECT]. Raises InputError for a check that does not exist."""
    name, _, obj = value.partition(":")
    if name not in set(known):
        from kubectl_genainet.model.target import not_found

        wrong = not_found("check", name, known)
        raise InputError(wrong.message, hint=f"{wrong.hint} `doctor --list` names them all.")
    return Acceptance(name, obj, by=f"--ignore {value}")


def accepted_by(finding: Finding, acceptances: Sequence[Acceptance]) -> str:
    """What accepts a finding; empty if nothing does."""
    for item in acceptances:
        field = finding.evidence[0].field if finding.evidence else ""
        if (
            item.check == finding.check
            and (not item.object or _names(finding, item.object))
            and item.field in ("", field)
        ):
            return item.by
    return ""


def object_key(finding: Finding) -> str:
    """KIND/NS/NAME (KIND/NAME for a cluster-scoped object); empty for a finding about the cluster."""
    ref = finding.object
    return "" if ref is None else "/".join(p for p in (ref.kind, ref.namespace, ref.name) if p)


def _names(finding: Finding, pattern: str) -> bool:
    ref = finding.object
    if ref is None:
        return False
    forms = (ref.name, f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name, object_key(finding))
    return any(fnmatch.fnmatchcase(form.lower(), pattern.lower()) for form in forms)


def read_baseline(content: bytes, source: str) -> tuple[Acceptance, ...]:
    """The acceptances of a baseline file. Raises InputError with the place in the file."""
    try:
        baseline = msgspec.json.decode(content, type=Baseline)
    except DECODE_ERRORS as error:
        raise InputError(
            f"not a baseline: {error}", source=source, hint="Write one with `doctor --write-baseline FILE`."
        ) from None
    if baseline.schema > SCHEMA:
        raise InputError(f"schema {baseline.schema}; this version reads up to {SCHEMA}", source=source)
    return tuple(msgspec.structs.replace(a, by=f"baseline {source}") for a in baseline.accepted)


def write_baseline(findings: Iterable[Finding]) -> bytes:
    """A baseline that accepts exactly these findings; sorted, so that it diffs well."""
    accepted = sorted(
        {(f.check, object_key(f), f.evidence[0].field if f.evidence else "") for f in findings},
    )
    lines = [msgspec.json.encode({"check": c, "object": o, "field": p}).decode() for c, o, p in accepted]
    body = ",\n    ".join(lines)
    return f'{{\n  "schema": {SCHEMA},\n  "accepted": [\n    {body}\n  ]\n}}\n'.encode()
