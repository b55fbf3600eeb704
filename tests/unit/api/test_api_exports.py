"""The public names of the library: all of them and no other, documented, and typed."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path

import pytest

import kubectl_genainet
from kubectl_genainet import api

LIBRARY = Path(__file__).parents[3] / "docs" / "library.md"
VERBS = (
    *("diagnose", "dns", "doctor", "drops", "explain", "fabric", "matrix"),
    *("past", "replay", "rules", "timeline", "trace"),
)


def test_all_lists_every_name_once_and_in_order() -> None:
    assert api.__all__ == sorted(set(api.__all__))
    assert all(hasattr(api, name) for name in api.__all__)


def test_what_the_module_defines_itself_is_public() -> None:
    own = {name for name, value in vars(api).items() if getattr(value, "__module__", "") == api.__name__}
    assert {name for name in own if not name.startswith("_")} <= set(api.__all__)


@pytest.mark.parametrize("name", sorted(set(api.__all__) - {"__version__"}))
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    value = getattr(api, name)
    assert value.__doc__ and not value.__doc__.startswith(f"{name}("), name


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_typed_and_in_the_docs(name: str) -> None:
    function = getattr(api, name)
    hints = typing.get_type_hints(function)
    assert set(inspect.signature(function).parameters) | {"return"} == set(hints)
    assert f"`{name}(" in LIBRARY.read_text()


@pytest.mark.parametrize("name", [n for n in api.__all__ if n.endswith("Result")])
def test_results_are_frozen_and_their_fields_are_in_the_docs(name: str) -> None:
    result = getattr(api, name)
    assert result.__dataclass_params__.frozen
    line = next(line for line in LIBRARY.read_text().splitlines() if f"`{name}`:" in line)
    assert all(f"`{field.name}`" in line for field in dataclasses.fields(result))


def test_types_in_results_are_public_too() -> None:
    results = [getattr(api, name) for name in api.__all__ if name.endswith("Result")]
    hints = [hint for result in results for hint in typing.get_type_hints(result).values()]
    classes = {c for hint in hints for c in (hint, *typing.get_args(hint)) if isinstance(c, type)}
    own = {c.__name__ for c in classes if c.__module__.startswith("kubectl_genainet")}
    assert own <= set(api.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(kubectl_genainet.__file__).parent / "py.typed").exists()
    assert api.__version__ == kubectl_genainet.__version__
