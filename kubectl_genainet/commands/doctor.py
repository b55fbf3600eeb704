"""`doctor`: the network of GenAI workloads, checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from kubectl_genainet.commands.options import (
    Messages,
    MessagesOnce,
    duration_argument,
    output_option,
    say_moment,
    show_each,
    source_options,
    watch_option,
)
from kubectl_genainet.doctor.accept import Acceptance, parse_ignore, read_baseline, write_baseline
from kubectl_genainet.doctor.check import Area
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.registry import all_checks, area_or_check, check_named, chosen, names_of_checks
from kubectl_genainet.doctor.report import Report
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.files import write_whole
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.target import not_found
from kubectl_genainet.render.live import record_writer
from kubectl_genainet.render.text import make_console
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.doctor.doctor import MEASURE_S, DoctorOptions, Examined, doctor
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.watch import watched_source

_SEVERITIES = [s.value for s in Severity]
MEASURE_MAX_S = 600


@click.command("doctor")
@source_options(manifests=True)
@click.option(
    "--only",
    "only",
    multiple=True,
    callback=lambda _, __, values: tuple(map(area_or_check, values)),
    shell_complete=lambda _, __, start: [name for name in names_of_checks() if name.startswith(start)],
    metavar="AREA|CHECK",
    help="Only the checks of an area, or one check (repeatable). Areas: " + ", ".join(a.value for a in Area) + ".",
)
@output_option("table", "wide", "json", "yaml", "name", "html", "sarif", templates=True)
@click.option(
    "--fail-on",
    type=click.Choice(_SEVERITIES),
    default="warning",
    show_default=True,
    help="Exit with status 1 from this severity on.",
)
@click.option(
    "--ignore",
    "ignores",
    multiple=True,
    metavar="CHECK[:OBJECT]",
    help="Accept a check's findings, all or for one object (NAME, NS/NAME, KIND/NS/NAME; * and ?).",
)
@click.option("--baseline", type=click.Path(), help="File of accepted findings.")
@click.option("--write-baseline", type=click.Path(), help="Write a file that accepts all that is found now.")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    metavar="KIND/NAME[=ROLE]",
    help="Take these for the GenAI workloads instead of recognising them. ROLE: "
    + ", ".join(r.value for r in Role if r is not Role.UNKNOWN)
    + ".",
)
@click.option(
    "--measure",
    default=f"{MEASURE_S:g}s",
    show_default=True,
    callback=lambda _, __, text: _measure(text),
    metavar="DURATION",
    help="How long to watch the cluster's DNS and GPU pods' traffic where agents run; 0: not at all.",
)
@click.option(
    "--complete",
    is_flag=True,
    help="The manifests are the whole cluster: all are applied together, and what is not among them does not exist. Without it "
    "one file, kustomization or folder is, and so are files named one by one.",
)
@watch_option("Then check again and again, and show the report when other things are wrong, until Ctrl-C.")
@click.option("--list", "list_checks", is_flag=True, help="List the checks and do nothing else.")
@click.option("--explain", metavar="CHECK", help="Say what a check looks at, why, and by which source.")
def command(
    source: Source,
    only: tuple[Area | str, ...],
    output: str,
    fail_on: str,
    ignores: tuple[str, ...],
    baseline: str | None,
    write_baseline: str | None,
    workloads: tuple[str, ...],
    measure: float,
    complete: bool,
    watch: bool,
    list_checks: bool,
    explain: str | None,
) -> ExitStatus:
    """Check a cluster's network against the practice for GenAI workloads.

    Works on the live API, on manifests and on bundles. Where agents run it also looks at the nodes, and watches the
    cluster's DNS and the traffic of GPU pods for the time of --measure. What could not be checked is listed with the
    reason. Exit status 1: something was found; 2: nothing was found, but pods, Services, endpoints or policies that were
    asked about may not be read.

    \b
    Examples:
      kubectl genainet doctor -n chatbot
      kubectl genainet doctor -A --only coredns --only nlb
      kubectl genainet doctor --manifests deploy/ -o sarif > doctor.sarif
      kubectl genainet doctor --from incident.bundle -o html > report.html
      kubectl genainet doctor --ignore nlb-idle-timeout:chatbot/my-llama-svc --fail-on error
      kubectl genainet doctor --only coredns --only lookups --measure 1m
      kubectl genainet doctor -n chatbot --watch
      kubectl genainet doctor --explain egress-without-dns
    """
    if list_checks or explain:
        return _about_checks(explain, only)
    options = DoctorOptions(only, tuple(_acceptances(ignores, baseline)), workloads, measure, complete)
    messages = MessagesOnce()

    def examine() -> Examined:
        with _progress(messages) as reporter:
            return doctor(source, options, reporter)

    if watch and write_baseline:
        raise click.UsageError("--watch does not go with --write-baseline")
    if watch:
        _watch(source, examine, messages.warn, output)
    say_moment(source)
    examined = examine()
    report = examined.report
    if write_baseline:
        _write(Path(write_baseline), report)
    _show(report, output, examined.snapshot)
    status = ExitStatus.FOUND if report.worst(Severity(fail_on)) else ExitStatus.OK
    return status.with_failures(bool(source.failed_nodes or examined.unread))


def _watch(source: Source, examine: Callable[[], Examined], warn: Warn, output: str) -> None:
    if not source.live:
        raise click.UsageError("--watch checks a live cluster or lab again and again: leave out --from and --manifests")
    show_each(
        watched_source(source, examine, lambda examined: examined.report.wrong, warn),
        lambda examined: _show(examined.report, output, examined.snapshot),
    )


def _about_checks(explain: str | None, only: tuple[Area | str, ...]) -> ExitStatus:
    from kubectl_genainet.render.doctor.docs import explanation, list_table

    console = make_console()
    if explain is None:
        console.print(list_table(chosen(only)))
        return ExitStatus.OK
    check = check_named(explain)
    if check is None:
        raise not_found("check", explain, (c.name for c in all_checks()))
    console.print(explanation(check))
    return ExitStatus.OK


def _acceptances(ignores: tuple[str, ...], baseline: str | None) -> list[Acceptance]:
    names = [c.name for c in all_checks()]
    acceptances = [parse_ignore(value, names) for value in ignores]
    if baseline:
        try:
            content = Path(baseline).read_bytes()
        except OSError as error:
            raise GenainetError(f"can't read the baseline {baseline}: {error.strerror}") from None
        acceptances += read_baseline(content, baseline)
    return acceptances


def _measure(text: str) -> float:
    seconds = duration_argument(text)
    if seconds > MEASURE_MAX_S:
        raise click.BadParameter(f"{text!r} is longer than {MEASURE_MAX_S // 60} minutes")
    return seconds


class _Reporter:
    """Progress in a bar, where there is one; elsewhere what takes a while is said in a line."""

    def __init__(self, messages: Messages, update: Callable[[int, int, str], None] | None = None) -> None:
        self._messages, self._update = messages, update

    def warn(self, text: str) -> None:
        self._messages.warn(text)

    def say(self, text: str) -> None:
        if self._update is None and not text.startswith("measuring"):
            return
        self.advance(0, 0, text) if self._update else self._messages.say(text)

    def advance(self, done: int, total: int, what: str) -> None:
        if self._update is not None:
            self._update(done, total, what)


@contextlib.contextmanager
def _progress(messages: Messages) -> Iterator[_Reporter]:
    """A progress bar on stderr where that is a terminal."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield _Reporter(messages)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield _Reporter(
            messages,
            lambda done, total, what: bar.update(task, completed=done, total=total or None, description=what),
        )


def _write(path: Path, report: Report) -> None:
    write_whole(path, write_baseline([*report.findings, *(a.finding for a in report.accepted)]), "the baseline")


def _show(report: Report, output: str, snapshot: ClusterSnapshot) -> None:
    if output in ("table", "wide"):
        from kubectl_genainet.render.doctor.table import print_report

        print_report(make_console(), report, wide=output == "wide")
    elif output == "html":
        from kubectl_genainet.render.doctor.html import html

        click.echo(html(report))
    elif output == "yaml":
        from kubectl_genainet.render.doctor.data import yaml_text

        click.echo(yaml_text(report), nl=False)
    elif output == "sarif":
        from kubectl_genainet.render.doctor.data import sarif

        sources = {o.ref: (o.source, o.line) for o in snapshot.objects if o.source}
        click.echo(sarif(report, all_checks(), sources))
    elif write := record_writer(output):
        from kubectl_genainet.render.doctor.data import records_of

        for record in (finding.object for finding in report.findings) if output == "name" else records_of(report):
            write(record)
