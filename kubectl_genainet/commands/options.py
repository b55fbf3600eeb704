"""Options that several verbs share, spelled as kubectl spells them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from kubectl_genainet.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

OK = 0
FOUND = 1
TIMED_OUT = 124


class Source(msgspec.Struct, frozen=True):
    """Where the cluster's state (and live events) come from: exactly one of lab, bundle, manifests or the API."""

    namespace: str = ""  # empty: the context's own
    all_namespaces: bool = False
    context: str = ""
    kubeconfig: str = ""
    lab: str = ""
    bundle: str = ""
    manifests: tuple[str, ...] = ()


def output_option(*formats: str) -> Callable[[F], F]:
    """-o FORMAT; the first format is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def source_options(*, live: bool = True, manifests: bool = False) -> Callable[[F], F]:
    """Adds -n, -A, --context, --kubeconfig, --from and --lab (and --manifests), and passes them as `source: Source`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(**kwargs: Any) -> Any:
            source = Source(
                namespace=kwargs.pop("namespace") or "",
                all_namespaces=kwargs.pop("all_namespaces"),
                context=kwargs.pop("context") or "",
                kubeconfig=kwargs.pop("kubeconfig") or "",
                lab=kwargs.pop("lab", None) or "",
                bundle=kwargs.pop("bundle", None) or "",
                manifests=tuple(kwargs.pop("manifests", ())),
            )
            given = [
                f for f, v in (("--lab", source.lab), ("--from", source.bundle), ("--manifests", source.manifests)) if v
            ]
            if len(given) > 1:
                raise click.UsageError(
                    f"{' and '.join(given)} exclude each other: each says where the state comes from"
                )
            return function(source=source, **kwargs)

        options = [
            click.option("-n", "--namespace", help="Namespace of the target; default: the context's own."),
            click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces."),
            click.option("--context", help="Context of the kubeconfig to use."),
            click.option("--kubeconfig", type=click.Path(), help="Path of the kubeconfig file."),
            click.option(
                "--from", "bundle", type=click.Path(), help="Work from a recorded bundle instead of a cluster."
            ),
        ]
        if live:
            options.append(
                click.option(
                    "--lab",
                    is_flag=False,
                    flag_value="default",
                    default=None,
                    metavar="[NAME]",
                    help="Work on the lab on this machine instead of a cluster.",
                )
            )
        if manifests:
            options.append(
                click.option(
                    "--manifests",
                    multiple=True,
                    metavar="PATH|-",
                    help="Work from YAML or JSON files, folders or standard input instead of a cluster.",
                )
            )
        decorated: Any = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def cluster_options(function: F) -> F:
    """--context and --kubeconfig, for verbs that work on a cluster only."""
    context = click.option("--context", default="", help="Context of the kubeconfig to use.")
    return context(
        click.option("--kubeconfig", type=click.Path(), default="", help="Path of the kubeconfig file.")(function)
    )


def parse_seconds(text: str) -> float:
    """A duration as kubectl takes it ("90s", "2m", "1h30m", "1.5s", "500ms"; a bare number is seconds), in seconds."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    if parts and "".join(a + b for a, b in parts) == text:
        return sum(float(value) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[unit] for value, unit in parts)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    raise InputError(f"{text!r} is not a duration", hint="Durations are 30s, 2m, 1h30m or 500ms.")
