"""The type of a diagnosis."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.finding import Evidence, Finding, ObjectRef, Remedy, Severity


class Diagnosis(msgspec.Struct, frozen=True):
    """One thing that `trace`, `drops` or `dns` can say.

    `name` is kebab-case, the `check` of the JSON. `severity` is the usual one: where the evidence makes it lighter or
    heavier, whoever says it gives another. `observed` is what the kernel reports, `meaning` what that means to an operator,
    `todo` what to do about it, `source` where the rule is from. Each is one line of the docs.
    """

    name: str
    severity: Severity
    observed: str
    meaning: str
    todo: str
    source: str = ""
    mild: bool = False  # no fault as long as connections come about all the same

    def finding(
        self,
        title: str,
        evidence: tuple[Evidence, ...],
        *,
        severity: Severity | None = None,
        object: ObjectRef | None = None,
        detail: str = "",
        remedy: Remedy | None = None,
    ) -> Finding:
        """This diagnosis, of one case; the severity is its own unless another is given."""
        return Finding(self.name, title, severity or self.severity, evidence, object, detail, remedy)
