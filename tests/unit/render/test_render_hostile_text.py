"""What a name brought along does nothing to the terminal, nor to the shell that a printed command is pasted into."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from markdown_it import MarkdownIt
from rich.text import Text

import kubectl_genainet
from kubectl_genainet import cli
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.finding import Certainty, Evidence, Remedy, Severity
from kubectl_genainet.policy import PolicyEndpoint, PolicyFlow
from kubectl_genainet.render.data_text import json_text, yaml_text
from kubectl_genainet.render.document.markdown import markdown, markdown_text
from kubectl_genainet.render.document.model import Card, Document, PathBox, TextTable
from kubectl_genainet.render.text import markup_safe, tell
from kubectl_genainet.why.remedies import explain_command

HOSTILE = "a\x1b]0;owned\x07\x9b2J\u202e\u2066b\x7f"


def _clean(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    "error", [GenainetError(f"no pod {HOSTILE}\nerror: fake", f"{HOSTILE}\nerror: fake"), click.UsageError(HOSTILE)]
)
def test_an_error_is_escaped_with_its_hint(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fails)
    monkeypatch.setattr(sys, "argv", ["kubectl-genainet", "trace"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert _clean(said) and "\\x1b" in said and "\\u202e" in said
    assert "\nerror: fake" not in said


def test_what_is_told_is_escaped_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"one {HOSTILE}\nerror: fake", "two")
    said = capsys.readouterr().err
    assert _clean(said) and len(said.splitlines()) == 2


def test_nothing_writes_to_stderr_past_the_escaping() -> None:
    """`tell` does; what asks before it overwrites; and the container `names`, whose stderr is a log."""
    package = Path(kubectl_genainet.__file__).parent
    raw = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in ("agent", "lab")
        and re.search(r"file=sys\.stderr|sys\.stderr\.write|(?<!std)err=True", path.read_text())
    }
    assert raw == {"commands/options/__init__.py", "kube/names.py", "render/text.py"}


def test_a_printed_command_quotes_what_a_name_brought_along() -> None:
    flow = PolicyFlow(
        PolicyEndpoint(namespace="a", name="x;reboot"), PolicyEndpoint(namespace="b", name="$(reboot)"), "TCP", 80
    )
    assert explain_command(flow) == "kubectl genainet explain 'pod/a/x;reboot' 'pod/b/$(reboot):80' --patch"


def test_the_patch_of_a_flow_is_asked_for_in_its_protocol() -> None:
    """Without it, explain judges TCP where the pod does not declare the port: the change for DNS admitted TCP 53."""
    flow = PolicyFlow(PolicyEndpoint("", "", "10.1.1.1"), PolicyEndpoint("", "", "10.1.1.2"), "UDP", 53)
    assert explain_command(flow) == "kubectl genainet explain 10.1.1.1 10.1.1.2:53 --protocol UDP --patch"


def test_a_name_is_no_markup_of_the_console() -> None:
    name = "[red]x[/red] [link=http://e]y[/] [/bold] \\[b] [@click=quit]z"
    shown = Text.from_markup(f"[bold]{markup_safe(name)}[/bold]")
    assert shown.plain == name and [str(span.style) for span in shown.spans] == ["bold"]


def test_a_name_is_no_markup_in_markdown() -> None:
    name = "[x](http://e) <b> a|b `c` &#64; ~~d~~ www.e.com _www.e.com HTTPS://e mailto:e ftp://e xmpp:e"
    text = markdown_text(name)
    assert re.sub(r"\\(.)", r"\1", text).replace("\u2060", "") == name, "nothing but escapes is added"
    bare = re.sub(r"\\.", "", text)
    assert not set(bare) & set("[]<>|`*_~&#") and not re.search(r"(?i)www\.|https?:|mailto:|ftp:|xmpp:", bare)
    document = Document(title="t", headline=name, commands=("x 'a`b``c'",))
    assert list(markdown(document))[-1] == "- next: ``` x 'a`b``c' ```"


def test_nor_is_it_any_wherever_a_document_has_it() -> None:
    name = "[x](http://e) <img src=x> *b* `c`\n```\n# FORGED"
    remedy = Remedy(name, yaml=f"a: b\n```\n# {name}", command=f"kubectl {name}")
    evidence = (Evidence(name, Certainty.OBSERVED),)
    way = (PathBox("client", name, name), PathBox("service", name))
    card = Card(name, Severity.ERROR, "check", name, evidence, (name,), way, remedy=remedy)
    table = TextTable(name, (name,), ((name,),))
    names: dict[str, Any] = {
        "headline": name,
        "nothing": name,
        "notes": (name,),
        "commands": (name,),
        "tables": (table,),
    }
    tags = set[str]()
    for cards in ((), (card,)):
        page = MarkdownIt("gfm-like", {"linkify": False}).render(
            "\n".join(markdown(Document(title="t", cards=cards, **names)))
        )
        tags |= set(re.findall(r"<(\w+)", page))
        assert not re.search(r"<h\d>\W*FORGED", page)
    assert not tags & {"a", "img", "del", "b"} and {"h1", "h2", "table", "pre", "code"} <= tags


def test_nothing_in_a_document_of_markdown_does_anything_to_a_terminal() -> None:
    """Nor in its blocks of code, which are copied as they are."""
    remedy = Remedy(HOSTILE, yaml=f"a: b\n# {HOSTILE}", command=f"kubectl {HOSTILE}")
    card = Card(HOSTILE, Severity.ERROR, "check", HOSTILE, (), (HOSTILE,), (PathBox("client", HOSTILE),), remedy=remedy)
    document = Document(title=HOSTILE, headline=HOSTILE, cards=(card,), notes=(HOSTILE,), commands=(HOSTILE,))
    lines = list(markdown(document))
    assert _clean("\n".join(lines)) and "a: b\n# " in "\n".join(lines)


@pytest.mark.parametrize(
    "text", [HOSTILE, "x\u202ey", "\u200b", "a\u2028b\u0085c", "- a: [\x1b", "yes", "1\n2", "\U000e0001"]
)
def test_a_string_of_yaml_and_json_is_shown_without_harm_and_read_as_it_was(text: str) -> None:
    shown = yaml_text([{text: [text]}])
    assert _clean(shown) and yaml.safe_load(shown) == {text: [text]}
    line = json_text({text: [text]})
    assert _clean(line) and "\n" not in line and json.loads(line) == {text: [text]}


@pytest.mark.parametrize(
    "name", ["@everyone", "@Org", "@0x", "x@corp.example", "@org/team", "#12", "org/repo#7", "$x$"]
)
def test_a_name_mentions_nobody_and_refers_to_nothing_in_markdown(name: str) -> None:
    """Of the text that Markdown becomes: mentions and references are made after it, whatever is escaped."""
    shown = re.sub(r"\\(.)", r"\1", markdown_text(name))
    assert not re.search(r"@[A-Za-z0-9]|#[0-9]", shown)
    assert shown.replace("\u2060", "") == name
    assert "$" not in re.sub(r"\\.", "", markdown_text(name))
