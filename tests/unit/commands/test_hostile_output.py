"""Names made to do something: to a terminal, a page, a parser, a reader of lines. Every verb that reads
a recording in every form that it has; test_hostile_live_output.py has the others."""

from __future__ import annotations

import gzip
import html.parser
import json
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from markdown_it import MarkdownIt

from kubectl_genainet.cli import cli
from kubectl_genainet.commands.options import OutputFormat

BUNDLES = Path(__file__).parents[2] / "golden" / "bundles"
RECORDED = {
    "trace": "policy-service-port",
    "diagnose": "policy-service-port",
    "timeline": "policy-service-port",
    "rules": "policy-service-port",
    "matrix": "policy-service-port",
    "doctor": "policy-service-port",
    "explain": "policy-service-port",
    "drops": "drops-policy-drop",
    "dns": "dns-timeout",
}
TEMPLATES = ("jsonpath={@}", "go-template={{.}}")
# OSC, CSI of C1, bidi, DEL, what ends a line for some reader, a tag's character beyond 16 bits; then HTML and quotes.
HOSTILE = (
    "\x1b]0;owned\x07\x9b2J\u202e\u2066\x7f\r\x85\u2028\u200b\U000e0041\nFORGED"
    "\"onload=x '<img src=x onerror=x></script><script>x</script>-->]]>```"
)
LONG = "x" * 2_000
KINDS = ("Pod", "NetworkPolicy", "Deployment", "ReplicaSet", "StatefulSet", "Node")


@cache
def lines_of(bundle: str) -> list[str]:
    with gzip.open(BUNDLES / f"{bundle}.gnb", "rt") as file:
        return file.read().splitlines()


def renamed(bundle: str, behind: str, folder: Path, kinds: tuple[str, ...] = KINDS) -> str:
    """A recording of objects with `behind` at the end of their names, wherever they stand but in rules."""
    header, objects, *events = lines_of(bundle)
    names = {o["metadata"]["name"] for o in json.loads(objects)["objects"] if o["kind"] in kinds}
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(longest_first)})(?![\w-])")
    end = json.dumps(behind)[1:-1]
    changed = (e if '"kind":"ruleset"' in e else pattern.sub(lambda m: m[0] + end, e) for e in (objects, *events))
    path = folder / "hostile.gnb"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(f"{line}\n" for line in (header, *changed))
    return str(path)


# What decodes to one of a closed set, and what parts of a recording are joined by.
STRUCTURE = {
    "kind",
    "apiVersion",
    "node",
    "nodeName",
    "protocol",
    "operator",
    "type",
    "family",
    "point",
    "stage",
    "end",
}
KEPT = re.compile(r"[\d.:/a-f]*|\d{4}-.*Z|rx|tx|drop|done")  # numbers, addresses, times, points


def with_hostile_texts(bundle: str, folder: Path) -> str:
    """A recording of which every text has HOSTILE behind it: what kernels, agents, pods and people may write."""

    def hostile(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: hostile(member, name) for name, member in value.items()}
        if isinstance(value, list):
            return [hostile(member, key) for member in value]
        is_text = (
            isinstance(value, str) and key not in STRUCTURE and key != "policyTypes" and KEPT.fullmatch(value) is None
        )
        return value + HOSTILE if is_text else value

    header, *lines = lines_of(bundle)
    path = folder / "hostile.gnb"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write(f"{header}\n")
        for line in lines:
            record = json.loads(line)
            if record["kind"] == "cluster":
                record["objects"] = list(map(hostile, record["objects"]))
            elif record["kind"] not in ("hello", "bye", "progress", "tick", "ruleset"):
                record = hostile(record)
            file.write(json.dumps(record) + "\n")
    return str(path)


def explained(bundle: str) -> list[str]:
    """Both ends of a flow, by address: a name made to do something is none that can be asked for."""
    pods = (o for o in json.loads(lines_of(bundle)[1])["objects"] if o["kind"] == "Pod")
    client, server, *_ = [pod["status"]["podIP"] for pod in pods if pod["metadata"]["namespace"] == "default"]
    return [client, f"{server}:8000"]


def options_of(verb: str) -> dict[str, Any]:
    command: Any = cli
    for word in verb.split():
        command = command.get_command(None, word)
    return {option.name: option for option in getattr(command, "params", ())}


def forms_of(verb: str) -> list[str]:
    """All forms that a verb's answer has; a new one is among them."""
    options = options_of(verb)
    output = options["output"].type
    templates = TEMPLATES if isinstance(output, OutputFormat) else ()
    return [*output.choices, *templates, *(["report"] if "report" in options else [])]


FORMS = [(verb, form) for verb in RECORDED for form in forms_of(verb)]


def printed(verb: str, form: str, bundle: str, folder: Path) -> tuple[str, str]:
    """(what the verb prints in that form, what it says)."""
    ends = explained(RECORDED[verb]) if verb == "explain" else ["-A"]
    page = folder / "page.html"
    output = ("--report", str(page)) if form == "report" else ("-o", form)
    done = CliRunner().invoke(cli, [verb, *ends, "--from", bundle, *output], standalone_mode=False)
    assert done.exception is None, done.exception
    return page.read_text() if form == "report" else done.stdout, done.stderr


class Page(html.parser.HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes = set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for each in pair for text in strings(each))
    elif isinstance(value, list):
        yield from (text for each in value for text in strings(each))


def values_in(form: str, text: str) -> list[Any]:
    if form == "yaml":
        return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return [json.loads(text)] if form == "sarif" else [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize(("verb", "form"), FORMS)
def test_a_name_does_nothing_in_any_form(verb: str, form: str, tmp_path: Path) -> None:
    text, said = printed(verb, form, renamed(RECORDED[verb], HOSTILE, tmp_path), tmp_path)
    unprintable = {c for c in text + said if not c.isprintable() and c != "\n"}
    assert unprintable == set()
    if form in ("json", "yaml", "sarif"):
        found = [name for value in values_in(form, text) for name in strings(value)]
        assert verb == "timeline" or any(HOSTILE in name for name in found), "it stays the same value"
        return
    assert not [line for line in text.splitlines() if re.match(r"[\W_]*FORGED", line)]
    if form in ("html", "report", "markdown"):
        page = Page(MarkdownIt("commonmark").render(text) if form == "markdown" else text)
        assert "img" not in page.tags and not {name for name in page.attributes if name.startswith("on")}


@pytest.mark.parametrize("verb", RECORDED)
def test_nor_does_any_other_text_of_a_recording(verb: str, tmp_path: Path) -> None:
    """Hooks, reasons, devices, messages, annotations, images, labels: in the form that people read, and in the page."""
    bundle = with_hostile_texts(RECORDED[verb], tmp_path)
    forms = forms_of(verb)
    for form in dict.fromkeys((forms[0], *({"html", "report", "markdown"} & set(forms)))):
        text, said = printed(verb, form, bundle, tmp_path)
        assert {c for c in text + said if not c.isprintable() and c != "\n"} == set(), form
        assert not [line for line in (text + said).splitlines() if re.match(r"[\W_]*FORGED", line)], form
        if form != forms[0]:
            page = Page(MarkdownIt("commonmark").render(text) if form == "markdown" else text)
            assert "img" not in page.tags and not {name for name in page.attributes if name.startswith("on")}, form


@pytest.mark.parametrize(("verb", "form"), FORMS)
def test_a_name_without_end_is_a_name(verb: str, form: str, tmp_path: Path) -> None:
    text, _ = printed(verb, form, renamed(RECORDED[verb], LONG, tmp_path), tmp_path)
    assert verb == "timeline" or form.startswith(TEMPLATES) or text


@pytest.mark.parametrize("form", [*forms_of("diagnose"), *TEMPLATES])
def test_a_file_whose_name_is_not_utf8_ends_no_form(form: str, tmp_path: Path) -> None:
    """The name stands in the commands of an answer."""
    path = os.fsdecode(bytes(tmp_path / "recorded") + b"\xff.gnb")
    shutil.copy(BUNDLES / "policy-service-port.gnb", path)
    text, _ = printed("diagnose", form, path, tmp_path)
    if form in ("json", "yaml"):
        found = [name for value in values_in(form, text) for name in strings(value)]
        assert any("recorded\\udcff.gnb" in name for name in found)
