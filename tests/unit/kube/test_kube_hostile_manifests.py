"""Manifests that unpack, nest or count without end: one InputError, and little time and memory."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize import build
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.kube.yaml_text import MAX_ALIASED, MAX_DEPTH, MAY_ALIAS, parse_text

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
NINE = "abcdefghij"


def _bomb(repeat: str) -> str:
    steps = itertools.pairwise(NINE)
    return (
        HEAD
        + "a: &a {x: 1}\n"
        + "".join(f"{new}: &{new} {repeat.format(','.join([f'*{old}'] * 9))}\n" for old, new in steps)
    )


@pytest.mark.parametrize(
    "text",
    [
        _bomb("[{}]"),
        _bomb("{{<<: [{}]}}"),
        HEAD + "data: &a [*a]\n",
        HEAD + "data: &a " + "x" * 60_000 + "\nmore: [" + "*a," * 500 + "]\n",
        "[" * 900 + "]" * 900,
        "- " * 900 + "x",
        '{"a":' * 900 + "1" + "}" * 900,
        '{"a":' * 100_000,
        '{"a":' + "9" * 60_000 + "}",
        '{} {"a":' + "9" * 60_000 + "}",
        "a: 0x" + "f" * 60_000,
        "a: " + "9" * 60_000,
        '{"a": 99999999999999999999}',  # 67 bits
        '{} {"a": 99999999999999999999}',
        "a: 99999999999999999999",
        '{ # YAML\n"a": 99999999999999999999}',
        "{}\n---\na: 99999999999999999999",
        "a: !!set {x, y}",
        "a: !!binary eA==",
        "a: !!python/object/apply:os.system [true]",
    ],
    ids=range(20),
)
def test_it_is_refused_soon_and_cheaply(text: str) -> None:
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(InputError) as refused:
            parse_text("file.yaml", text, lambda _: None)
        assert time.process_time() - begun < 3  # with tracemalloc, which makes it slow
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert refused.value.message.startswith("file.yaml: ")


def test_anchors_as_people_use_them_are_read() -> None:
    text = "a: &labels {app: rag}\nb: *labels\nc: {<<: *labels, tier: web}\n"
    (found,) = parse_text("file.yaml", text, lambda _: None)
    assert found["b"] == {"app": "rag"} and found["c"] == {"app": "rag", "tier": "web"}


def test_what_is_allowed_is_allowed_to_its_bound() -> None:
    (found,) = parse_text("f", "[" * MAX_DEPTH + "]" * MAX_DEPTH, lambda _: None)
    assert isinstance(found, list)
    parse_text("f", "a: &a [" + "x," * 99 + "]\nb: [" + "*a," * (MAX_ALIASED // 100 - 1) + "]", lambda _: None)


def test_yaml_documents_of_which_the_first_is_json_are_read() -> None:
    text = '{"kind": "Namespace", "metadata": {"name": "a"}}\n---\nkind: Service\nmetadata:\n  name: b\n'
    assert [value["kind"] for value in parse_text("in.yaml", text, lambda _: None)] == ["Namespace", "Service"]


def test_logs_that_do_not_end_cost_as_much_as_they_are_long() -> None:
    """`kubectl cluster-info dump` has what containers log between the objects: they log what they like."""
    text = '{"kind": "Pod"}\n' + "==== START logs for container a of pod b/c ====\n" * 100_000
    begun = time.process_time()
    with pytest.raises(InputError):
        parse_text("dump", text, print)
    assert time.process_time() - begun < 2
    ended = text + '==== END logs for container a of pod b/c ====\n{"kind": "Node"}\n'
    assert parse_text("dump", ended, print) == [{"kind": "Pod"}, {"kind": "Node"}]


def test_every_alias_is_counted_wherever_it_begins() -> None:
    """A text that no alias can begin in is not counted: no text of these parts may be taken for one that has an alias."""
    parts = (
        "*a",
        "&a ",
        "- ",
        "a",
        "\n",
        ": ",
        ":",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'",
        '"',
        "?",
        "!t ",
        "#",
        "\u2028",
        "\x85",
    )
    texts = ["".join(chosen) for length in (1, 2, 3) for chosen in itertools.product(parts, repeat=length)]
    aliased = [text for text in texts if "*" in text and _has_an_alias(text)]
    assert len(aliased) > 300
    assert [text for text in aliased if not MAY_ALIAS.search(text)] == []


def _has_an_alias(text: str) -> bool:
    try:
        return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError:
        return False


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"\xff\xfe\xfd", "can't decode"),
        (b"a: [", "not YAML"),
        (b"a: " + b"9" * 50, "more than 64 bits"),
        (b"resources: []\n" + b"#" * 2_000, "more than 0 MiB"),
        (b"resources: []\n---\nresources: []\n", "is not a kustomization"),
        (b"- resources", "is not a kustomization"),
        (b"resources: {a: b}", "resources is not a list"),
    ],
)
def test_a_kustomization_that_is_none_costs_no_other_file(
    text: bytes, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_MOST_BYTES", 1_000)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/kustomization.yaml").write_bytes(text)
    (tmp_path / "service.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: chat}\n")
    loaded = load_manifests([str(tmp_path)])
    assert [str(obj.ref) for obj in loaded.objects] == ["Service default/chat"]
    assert any(problem in note for note in loaded.notes), loaded.notes
