"""The decisions in docs/adr: numbered once each, and all of them in the index."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "adr"
SECTIONS = ("Context", "Choices", "Decision", "Rejected", "Consequences")
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


def test_each_record_has_a_number_of_its_own_and_says_it_in_its_title() -> None:
    numbers = [int(path.name[:4]) for path in RECORDS]
    titles = [int(re.match(r"# (\d+)\. ", path.read_text(encoding="utf-8")).group(1)) for path in RECORDS]  # type: ignore[union-attr]
    assert len(set(numbers)) == len(numbers)
    assert titles == numbers


def test_each_record_has_the_same_sections_in_the_same_order() -> None:
    for path in RECORDS:
        sections = re.findall(r"^## (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert [section for section in SECTIONS if section in sections] == sections
        assert "Decision" in sections


def test_the_index_lists_every_record_by_its_title() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in RECORDS:
        number, _, title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(". ")
        assert f"| [{number}]({path.name}) | {title} |" in index
