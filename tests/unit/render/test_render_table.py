"""Tables that fit: whole in a pipe, fewer columns in a narrow terminal, paragraphs where that is not enough."""

from __future__ import annotations

import io
from operator import itemgetter

from rich.console import Console
from rich.text import Text

from kubectl_genainet.render.paragraphs import command_lines, hanging
from kubectl_genainet.render.table import Column, table

Row = tuple[str, str, str]
COLUMNS: tuple[Column[Row], ...] = (
    Column("NAME", lambda r: r[0]),
    Column("NODE", lambda r: r[1], spare=1),
    Column("HITS", lambda r: "0", right=True),
    Column("PROBLEM", lambda r: r[2]),
)
ROWS = [("a-long-name-of-a-pod-7f9c", "node-1", "the agent does not answer, and has not since noon"), ("b", "-", "-")]


def shown(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, no_color=True).print(table(COLUMNS, ROWS))
    return out.getvalue().splitlines()


def test_a_wide_table_is_whole_and_has_no_blanks_at_its_ends() -> None:
    first, second, _ = shown(1000)
    assert first.split() == ["NAME", "NODE", "HITS", "PROBLEM"]
    assert second.endswith("since noon") and not any(line.endswith(" ") for line in shown(1000))


def test_columns_without_news_go_first_then_the_spare_ones() -> None:
    assert "HITS" not in shown(90)[0] and "NODE" in shown(90)[0]
    assert "NODE" not in shown(80)[0] and len(shown(80)) == 3


def test_the_last_column_wraps_at_words() -> None:
    lines = shown(60)
    assert max(map(len, lines)) <= 60 and lines[0].split() == ["NAME", "PROBLEM"]
    assert {word for line in lines[1:] for word in line.split()} >= set(ROWS[0][2].split())


def test_a_narrow_terminal_gets_a_paragraph_a_row_with_no_cell_broken() -> None:
    lines = shown(30)
    assert lines[0] == "a-long-name-of-a-pod-7f9c" and lines[1] == "    node node-1"
    assert lines[-1] == "b" and "NAME" not in lines[0]


def test_a_word_as_wide_as_the_terminal_stays_whole_and_leaves_no_blank_behind_its_title() -> None:
    server = "my-llama-finetuned-cdvlk54g9-9xw2h:8080"
    columns: tuple[Column[Row], ...] = tuple(
        Column(title, itemgetter(n)) for n, title in enumerate(("CLIENT", "SERVER", "WHERE"))
    )
    out = io.StringIO()
    Console(file=out, width=40, no_color=True).print(table(columns, [("chatbot-ui", server, "node-1 FORWARD")]))
    assert out.getvalue().splitlines() == ["chatbot-ui", "    server", server, "    where node-1 FORWARD"]


def test_paragraphs_keep_their_indentation() -> None:
    lines = [line.plain for line in hanging(Text("one two three four five six seven"), 24, indent=2, hang=2)]
    assert lines == ["  one two three four", "    five six seven"]


def test_a_command_that_wraps_runs_as_it_is_printed() -> None:
    command = "kubectl genainet explain pod/default/client-1 'pod/default/server 2':80 --patch"
    lines = [line.plain for line in command_lines(command, 60, indent=4)]
    assert all(len(line) <= 60 for line in lines) and [line.endswith(" \\") for line in lines] == [True, False]
    assert " ".join(line.removesuffix("\\").strip() for line in lines) == command.replace(
        "'pod/default/server 2':80", "'pod/default/server 2:80'"
    )
