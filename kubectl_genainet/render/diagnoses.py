"""docs/diagnoses.md: everything that `trace`, `drops` and `dns` can say, from the registry.

python -m kubectl_genainet.render.diagnoses > docs/diagnoses.md
"""

from __future__ import annotations

from kubectl_genainet.model.diagnoses import GROUPS, Diagnosis

_HEAD = """# Diagnoses

<!-- Made from the registry by `python -m kubectl_genainet.render.diagnoses > docs/diagnoses.md`. -->

Everything that `trace`, `drops` and `dns` can say. The name is the `check` of the JSON. The severity is the usual one: where the
evidence of a case makes it lighter or heavier, the case has another. What `doctor` can say is in [checks.md](checks.md).
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(one: Diagnosis) -> str:
    severity = f"{one.severity.value}, info while connections come about" if one.mild else one.severity.value
    source = f" Source: {one.source}" if one.source else ""
    cells = (f"`{one.name}`", severity, one.observed, one.meaning, f"{one.todo}{source}")
    return f"| {' | '.join(map(_cell, cells))} |"


def diagnoses_markdown() -> str:
    """The page, with its last newline."""
    parts = [_HEAD]
    for title, group in GROUPS.items():
        table = ["| check | severity | observed | meaning | what to do |", "|---|---|---|---|---|", *map(_row, group)]
        parts.append(f"## {title}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(diagnoses_markdown(), end="")
