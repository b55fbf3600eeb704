"""kubectl's JSONPath templates over the records of -o json."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.render.jsonpath import JsonPathTemplate

RECORD = {
    "hops": [{"point": "rx", "device": "a"}, {"point": "tx", "device": "b"}, {"point": "rx", "device": "c"}],
    "labels": {"app.kubernetes.io/name": "llama"},
    "drop": None,
    "count": 3,
}
BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "stale-endpoint.gnb"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.count}", "3"),
        (".count", "3"),
        ("{.hops[*].device}", "a b c"),
        ("{.hops[0].device}", "a"),
        ("{.hops[-1:].device}", "c"),
        ('{.hops[?(@.point=="rx")].device}', "a c"),
        ("{..device}", "a b c"),
        (r"{.labels.app\.kubernetes\.io/name}", "llama"),
        ("{.labels['app.kubernetes.io/name']}", "llama"),
        ('{range .hops[*]}{.point}:{.device}{"\\n"}{end}', "rx:a\ntx:b\nrx:c\n"),
        ("n={.count};{.nothing}{.drop}", "n=3;null"),
        ("{.labels}", '{"app.kubernetes.io/name":"llama"}'),
    ],
)
def test_a_template_reads_as_kubectl_reads_it(template: str, text: str) -> None:
    assert JsonPathTemplate(template).text_of(RECORD) == text


@pytest.mark.parametrize("template", ["{.hops[", "{range .hops[*]}{.point}", "{end}", "{.hops[?(]}"])
def test_a_template_that_can_not_be_read_is_said(template: str) -> None:
    with pytest.raises(InputError):
        JsonPathTemplate(template)


def test_what_comes_from_the_cluster_can_not_drive_a_terminal() -> None:
    assert JsonPathTemplate("{.name}").text_of({"name": "\x1b[2J"}) == "\\x1b[2J"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kubectl_genainet", *arguments], capture_output=True, text=True)


def test_commands_write_a_line_a_record() -> None:
    done = run("diagnose", "svc/my-llama-svc", "--from", str(BUNDLE), "-o", "jsonpath={.kind} {.causes[0].check}")
    assert (done.returncode, done.stdout) == (1, "diagnosis stale-endpoint\n")
    done = run("trace", "svc/my-llama-svc", "--from", str(BUNDLE), "-o", "jsonpath={.kind}")
    assert done.stdout.splitlines()[-1] == "summary" and set(done.stdout.splitlines()) == {"path", "summary"}


@pytest.mark.parametrize("template", ['{"\\x"}', '{"\\ud800"}', '{"\\q é"}', '{"\\777"}'])
def test_a_literal_that_is_none_stays_as_it_is(template: str) -> None:
    text = JsonPathTemplate(template).text_of(RECORD)
    assert text.encode() and "é" in (text if "é" in template else "é")


@pytest.mark.parametrize(
    "template",
    [
        "{}" * 8000,
        '{.hops[?(@.device =~ "(a+)+$")].device}',
        "{.labels.`sub(/(a+)+$/, x)`}",
        "{" * 3000,
    ],
)
def test_a_template_that_would_take_long_or_does_not_fit_is_refused(template: str) -> None:
    with pytest.raises(InputError):
        JsonPathTemplate(template).text_of(RECORD)


def test_names_within_an_object_do_nothing_to_a_terminal() -> None:
    text = JsonPathTemplate("{.flow}{.hops}").text_of({"flow": {"\u202e": "\x9b2J\x7f"}, "hops": ["é"]})
    assert text.isprintable() and "é" in text


def test_a_template_of_a_file_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "kind.txt").write_text("{.kind}\n")
    done = run("diagnose", "svc/my-llama-svc", "--from", str(BUNDLE), "-o", f"jsonpath-file={tmp_path / 'kind.txt'}")
    assert (done.returncode, done.stdout) == (1, "diagnosis\n")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("jsonpath={.hops[", "JSONPath"),
        ("go-template={{.kind", "does not end"),
        ("jsonpath-file=nowhere.txt", "can't read nowhere.txt"),
        ("go-template", "go-template needs a template: -o go-template='{{.kind}}'"),
        ("jsonpath=", "jsonpath needs a template: -o jsonpath='{.kind}'"),
        ("csv", "'csv' is not one of tree, wide, markdown, json, yaml, name, jsonpath=…, go-template=…"),
        ("html", "A page: --report FILE.html"),
    ],
)
def test_a_bad_template_fails_before_anything_is_read(output: str, said: str) -> None:
    done = run("trace", "--from", "nowhere.gnb", "-o", output)
    assert done.returncode == 2 and said in done.stderr and "nowhere.gnb" not in done.stderr
