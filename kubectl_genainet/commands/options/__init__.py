"""Options that several verbs share, spelled as kubectl spells them, and how commands tell what happens."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from kubectl_genainet.commands.options.suggested import as_used, commands_as_used, options_of
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.target import is_connection_end
from kubectl_genainet.model.units import seconds
from kubectl_genainet.model.user import Impersonation
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.choice import SourceChoice, is_table

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice  # not generic before click 8.2


class OutputFormat(_Choice):
    """One of the formats, or a template for the records of -o json, as kubectl takes it: jsonpath= and go-template=, or the
    name of a file that holds one (jsonpath-file=, go-template-file=)."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name, equals, template = value.partition("=")
        if name in ("jsonpath-file", "go-template-file") and equals:
            name, template = name.removesuffix("-file"), read_argument(template)
        if name in ("jsonpath", "go-template") and not template:
            example = {"jsonpath": "'{.kind}'", "go-template": "'{{.kind}}'"}[name]
            self.fail(f"{name} needs a template: -o {name}={example}", param, ctx)
        if name == "jsonpath" and equals:
            from kubectl_genainet.render.jsonpath import JsonPathTemplate

            JsonPathTemplate(template)
            return f"{name}={template}"
        if name == "go-template" and equals:
            from kubectl_genainet.render.gotemplate.evaluate import GoTemplate

            GoTemplate(template)
            return f"{name}={template}"
        if value not in self.choices:
            page = " A page: --report FILE.html." if value == "html" and _has_report(ctx) else ""
            self.fail(
                f"'{value}' is not one of {', '.join(self.choices)}, jsonpath=…, go-template=….{page}", param, ctx
            )
        return super().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(self.choices)}|jsonpath=…|go-template=…]"


def _has_report(ctx: click.Context | None) -> bool:
    return ctx is not None and any(param.name == "report" for param in ctx.command.params)


def output_option(*formats: str, templates: bool = False) -> Callable[[F], F]:
    """-o FORMAT; the first format is the default. With `templates`, a JSONPath or a Go template too."""
    more = " jsonpath=, jsonpath-file=, go-template= and go-template-file= are as kubectl's, for the records of json."
    return click.option(
        "-o",
        "--output",
        type=OutputFormat(formats) if templates else click.Choice(formats),
        default=formats[0],
        show_default=True,
        help=f"Output format.{more if templates else ''}",
    )


def budget_option(what: str, beyond: str) -> Callable[[F], F]:
    """--budget PERCENT; `what` the agents may spend it on, and what happens `beyond` it."""
    return click.option(
        "--budget",
        default=5.0,
        show_default=True,
        type=click.FloatRange(0.1, 400),
        help=f"Per cent of one core that {what} may take on each node. Beyond it {beyond}.",
    )


def _choice(kwargs: dict[str, Any]) -> SourceChoice:
    """Takes the options of `source_options` out of a command's parameters. Raises click.UsageError for two sources."""
    choice = SourceChoice(
        namespace=kwargs.pop("namespace") or "",
        all_namespaces=kwargs.pop("all_namespaces"),
        context=kwargs.pop("context") or "",
        kubeconfig=kwargs.pop("kubeconfig") or "",
        bundle=kwargs.pop("bundle") or "",
        user=kwargs.pop("as_user"),
        groups=kwargs.pop("as_groups"),
        lab=kwargs.pop("lab", None) or "",
        manifests=tuple(kwargs.pop("manifests", ())),
    )
    try:
        choice.check()
    except InputError as error:
        raise click.UsageError(error.message) from None
    return choice


lab_option = click.option(
    "--lab",
    is_flag=False,
    flag_value="default",
    default=None,
    metavar="[NAME]",
    help="Work on the lab on this machine instead of a cluster.",
)
_from_bundle = click.option(
    "--from",
    "bundle",
    type=click.Path(),
    metavar="BUNDLE",
    help="Work from a recorded bundle instead of a cluster; or from a table of records: clickhouse://HOST/DB, chdb:FOLDER.",
)
_from_clients = click.option(
    "--from",
    "bundle",
    multiple=True,
    metavar="BUNDLE|END",
    help="Work from a recorded bundle instead of a cluster, or from a table of records (clickhouse://HOST/DB, chdb:FOLDER); or "
    "only connections of this client: pod/[NAMESPACE/]NAME, deploy/NAME, ns/NAME, node/NAME, a CIDR or a label (app=rag).",
)


def split_from(values: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """(the bundle, the clients) among the values of --from: what has the form of a connection's end, and is no file, is a
    client. Raises click.UsageError for two bundles."""
    bundles = [v for v in values if not is_connection_end(v) or v.endswith(".gnb") or is_table(v) or Path(v).is_file()]
    if len(bundles) > 1:
        raise click.UsageError(f"--from takes one bundle, not {' and '.join(bundles)}")
    return next(iter(bundles), None), tuple(v for v in values if v not in bundles)


def _manifests_option() -> Callable[[F], F]:
    return click.option(
        "--manifests",
        multiple=True,
        metavar="PATH|-",
        help="Work from YAML or JSON files, folders or standard input instead of a cluster.",
    )


def source_options(
    *,
    live: bool = True,
    manifests: bool = False,
    clients: bool = False,
    opened: bool = True,
    past: bool = False,
    own_length: str = "",
) -> Callable[[F], F]:
    """Adds -n, -A, --context, --kubeconfig, --from and --lab (and --manifests), and passes them as `source: Source`, or as
    `choice: SourceChoice` where the command does not have it `opened`.

    With `clients`, --from takes clients too, and they are passed as `clients`. With `past`, --since, --at, --for and --until
    make a time that has passed the source; `own_length` is the verb's own parameter for --for, in seconds, if it has one.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(**kwargs: Any) -> Any:
            if clients:
                kwargs["bundle"], kwargs["clients"] = split_from(kwargs["bundle"])
            choice = _choice(kwargs)
            if not opened:
                with commands_as_used(lambda: options_of(choice)):
                    return function(choice=choice, **kwargs)
            source = choice.open(Messages().warn)
            if past:
                source = _past_of(source, kwargs, own_length)
            with commands_as_used(lambda: source.options):
                return function(source=source, **kwargs)

        options = [
            click.option("-n", "--namespace", help="Namespace of the target; default: the context's own."),
            click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces."),
            click.option("--context", help="Context of the kubeconfig to use."),
            click.option("--kubeconfig", type=click.Path(), help="Path of the kubeconfig file."),
            *impersonation_options(),
            _from_clients if clients else _from_bundle,
            *([lab_option] if live else []),
            *([_manifests_option()] if manifests else []),
        ]
        if past:
            from kubectl_genainet.commands.options.when import time_options

            options += time_options(length=not own_length)
        decorated: Any = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _past_of(source: Source, parameters: dict[str, Any], own_length: str) -> Source:
    """The source, or what was recorded of it in the time that the options name."""
    from kubectl_genainet.commands.options.when import time_range
    from kubectl_genainet.run.sources.past import past_of

    since, at, until = (parameters.pop(name) for name in ("since", "at", "until"))
    if own_length:
        context = click.get_current_context()
        on_line = context.get_parameter_source(own_length) is ParameterSource.COMMANDLINE
        length_s: float | None = parameters[own_length] if on_line else None
    else:
        text = parameters.pop("length")
        length_s = duration_argument(text) if text is not None else None
    when = time_range(since, at, until, None if own_length and since is None and at is None else length_s)
    if when is None:
        if length_s is not None and not own_length:
            how_long = "; --timeout says how long to watch" if "timeout" in parameters else ""
            raise click.UsageError(f"--for goes with --at or --since{how_long}")
        return source
    try:
        return past_of(source, when, Messages().warn)
    except InputError as error:
        raise click.UsageError(error.message) from None


def cluster_options(function: F) -> F:
    """--context, --kubeconfig and --as, --as-group (passed as `user: Impersonation`), for verbs that work on a cluster only."""

    @functools.wraps(function)
    def wrapper(**kwargs: Any) -> Any:
        user = Impersonation(kwargs.pop("as_user"), kwargs.pop("as_groups"))
        context, kubeconfig, lab = (kwargs.get(name) or "" for name in ("context", "kubeconfig", "lab"))
        choice = SourceChoice(context=context, kubeconfig=kubeconfig, lab=lab, user=user.name, groups=user.groups)
        with commands_as_used(lambda: options_of(choice)):
            return function(user=user, **kwargs)

    decorated: Any = wrapper
    for option in (
        *impersonation_options(),
        click.option("--kubeconfig", type=click.Path(), default="", help="Path of the kubeconfig file."),
        click.option("--context", default="", help="Context of the kubeconfig to use."),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def impersonation_options() -> list[Callable[[F], F]]:
    """--as and --as-group."""
    return [
        click.option("--as", "as_user", default="", metavar="USER", help="Ask the API server as this user."),
        click.option("--as-group", "as_groups", multiple=True, metavar="GROUP", help="And as a member of this group."),
    ]


def watch_options(timeout: str = "30s") -> Callable[[F], F]:
    """Adds --node, --timeout (passed in seconds) and --record."""

    def decorate(function: F) -> F:
        how_long = "How long to watch, once all nodes do."
        options = (
            record_option,
            click.option("--timeout", default=timeout, show_default=True, callback=_seconds, help=how_long),
            click.option("--node", default="", help="Only what this node sees."),
        )
        decorated: Any = function
        for option in options:
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def watch_option(what: str) -> Callable[[F], F]:
    """-w, --watch; `what` is its help."""
    return click.option("-w", "--watch", is_flag=True, help=what)


def show_each(answers: Iterable[T], show: Callable[[T], object]) -> None:
    """Shows what --watch gives: an answer, and each other one that follows it, with the time."""
    for number, answer in enumerate(answers):
        if number:
            Messages().say(f"changed, {datetime.now(UTC):%H:%M:%SZ}:")
        show(answer)
        sys.stdout.flush()


def record_option(function: F) -> F:
    """--record FILE."""
    return click.option(
        "--record",
        type=click.Path(dir_okay=False, writable=True),
        default="",
        callback=_not_overwritten,
        help="Write a bundle that --from can replay. In a terminal it asks before it overwrites a file.",
    )(function)


def _not_overwritten(context: click.Context, _: click.Parameter, file: str) -> str:
    """Asks before a file is overwritten, where there is somebody to ask."""
    there = bool(file) and not context.resilient_parsing and Path(file).is_file() and Path(file).stat().st_size > 0
    if there and sys.stdin.isatty():
        from kubectl_genainet.render.text import printable

        click.confirm(f"{printable(str(file))} is there already. Overwrite it?", abort=True, err=True)
    return file


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    value = duration_argument(text)
    if not 0 < value <= 3600:
        raise click.BadParameter(f"{text!r} is not a time of up to 1h, like 30s or 2m")
    return value


def duration_argument(text: str) -> float:
    """A duration of the command line, in seconds. Raises click.BadParameter."""
    try:
        return parse_seconds(text)
    except InputError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}") from None


def parse_seconds(text: str) -> float:
    """A duration as kubectl takes it ("90s", "2m", "1h30m", "1.5s", "500ms"; a bare number is seconds), in seconds."""
    value = seconds(text)
    if value is not None:
        return value
    raise InputError(f"{text!r} is not a duration", hint="Durations are 30s, 2m, 1h30m or 500ms.")


def read_argument(name: str) -> str:
    """The text of a file that an argument names; "-" is standard input. Raises GenainetError for one that can't be read."""
    from kubectl_genainet.proxy.dumps.posted import decoded

    try:
        return decoded(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
    except OSError as error:
        raise GenainetError(f"can't read {name}: {error.strerror}") from None


class Messages:
    """Warnings and progress of a run, on stderr."""

    def warn(self, text: str) -> None:
        from kubectl_genainet.render.text import tell

        tell(f"warning: {as_used(text)}")

    def say(self, text: str) -> None:
        from kubectl_genainet.render.text import tell

        tell(text)


def say_moment(source: Source) -> None:
    """Of a time that has passed `rules` and `explain` show its begin, which may be before what was asked about."""
    if source.moment:
        Messages().say(f"as it was at {source.moment[:19]}Z, where the time that was asked for begins")


class MessagesOnce(Messages):
    """Says each warning once, however often it is given."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def warn(self, text: str) -> None:
        if text not in self._given:
            self._given.add(text)
            super().warn(text)
