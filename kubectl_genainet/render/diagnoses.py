"""docs/diagnoses.md: everything that `trace`, `drops`, `dns`, `rules`, `fabric` and `diagnose` can say, from the registry.

python -m kubectl_genainet.render.diagnoses > docs/diagnoses.md
"""

from __future__ import annotations

import importlib
import pkgutil

from kubectl_genainet import diagnose, dns, drops, proxy, trace, why
from kubectl_genainet.model.diagnoses import DIAGNOSES, Diagnosis, Topic

_HEAD = """# Diagnoses

<!-- Made from the registry by `python -m kubectl_genainet.render.diagnoses > docs/diagnoses.md`. -->

Everything that `trace`, `drops`, `dns`, `rules`, `fabric` and `diagnose` can say. The name is the `check` of the JSON. The
severity is the usual one: a case has another where its evidence makes it lighter or heavier. What `doctor` can say is in
[checks.md](checks.md).
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(diagnosis: Diagnosis) -> str:
    severity = (
        f"{diagnosis.severity.value}, info while connections are established"
        if diagnosis.mild
        else diagnosis.severity.value
    )
    source = f" Source: {diagnosis.source}" if diagnosis.source else ""
    cells = (f"`{diagnosis.name}`", severity, diagnosis.observed, diagnosis.meaning, f"{diagnosis.todo}{source}")
    return f"| {' | '.join(map(_cell, cells))} |"


def _import_all() -> None:
    """A diagnosis may be made beside the function that says it."""
    for package in (diagnose, dns, drops, proxy, trace, why):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def diagnoses_markdown() -> str:
    """The page, with its last newline."""
    parts = [_HEAD]
    _import_all()
    for topic in Topic:
        rows = [_row(diagnosis) for diagnosis in DIAGNOSES.values() if diagnosis.topic is topic]
        table = ["| check | severity | observed | meaning | what to do |", "|---|---|---|---|---|", *rows]
        parts.append(f"## {topic.value}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(diagnoses_markdown(), end="")
