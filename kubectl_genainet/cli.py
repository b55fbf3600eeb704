"""The command line: registration only. Each verb lives in commands/ and is imported when it is called."""

from __future__ import annotations

import errno
import importlib
import io
import itertools
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from kubectl_genainet import __version__
from kubectl_genainet.errors import ExitStatus, GenainetError

NODE_PACKAGES = ("dns", "h11", "prometheus_client", "pyroute2")
# a package that not every command needs -> the extra that brings it
EXTRAS = {
    **dict.fromkeys(NODE_PACKAGES, "lab"),
    **dict.fromkeys(("anyio", "mcp", "mcp_types"), "mcp"),
    **dict.fromkeys(("chdb", "clickhouse_connect", "numpy", "ruptures"), "history"),
}
# verb -> (module in commands/, one line for the list of commands)
VERBS = {
    "diagnose": ("diagnose", "Say what is broken, for whom, because of what, and what to do"),
    "timeline": ("timeline", "Show what was felt and what changed over a time, and when it began"),
    "trace": ("trace", "Show the path of real packets through a Service, hop by hop"),
    "drops": ("drops", "Show what is being dropped now, where and why"),
    "dns": ("dns", "Show who waits for DNS, for which names, at which hop"),
    "explain": ("explain", "Say whether policies admit a flow, why, and what would admit it"),
    "matrix": ("matrix", "Show who may reach whom"),
    "rules": ("rules", "Show what kube-proxy has programmed for a Service on each node"),
    "fabric": ("fabric", "Show which GPU pods talk by RDMA and which by kernel TCP"),
    "doctor": ("doctor", "Check a cluster's network against the practice for GenAI workloads"),
    "mcp": ("mcp", "Serve the read-only verbs to programs that speak the Model Context Protocol"),
    "deploy": ("agents.deploy", "Put the agent on the nodes of a cluster"),
    "undeploy": ("agents.undeploy", "Remove all that deploy made"),
    "status": ("agents.status", "Show the agents, node by node"),
    "lab": ("lab", "A cluster on this machine, with a real datapath"),
    "version": ("version", "Show the versions of the client and of the agents"),
}


class BrokenOutput(Exception):
    """A BrokenPipeError: click would end the program with 1 for it."""


@contextmanager
def _broken_pipe_of_ours() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise BrokenOutput(str(error)) from error


class LazyGroup(click.Group):
    """Imports a verb's module only when it is needed: `--help` and completion stay fast."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _broken_pipe_of_ours():  # of --help and --version
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _broken_pipe_of_ours():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"kubectl_genainet.commands.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from kubectl_genainet.model.target import not_found

            wrong = not_found("command", args[0], VERBS)
            raise click.UsageError(f"{wrong.message}. {wrong.hint}", ctx) from error


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 nothing wrong found, 1 something found, 2 the command failed, 124 nothing seen in time.",
)
@click.version_option(__version__, prog_name="kubectl-genainet")
def cli() -> None:
    """Diagnose the network of GenAI workloads on Kubernetes, from real packets."""


def with_lab_named(arguments: list[str]) -> list[str]:
    """`--lab` takes an optional name, and would take a target behind it for one: `trace --lab svc/x`."""
    following = itertools.chain(arguments[1:], ["/"])
    return [
        "--lab=default" if argument == "--lab" and ("/" in after or ":" in after or "." in after) else argument
        for argument, after in zip(arguments, following, strict=False)
    ]


def joined_target(arguments: list[str]) -> str:
    """The target of a command line that spells it as two words ("svc my-svc" is "svc/my-svc"); "" where none is."""
    from kubectl_genainet.model.target import KIND_WORDS

    pairs = itertools.pairwise(arguments)
    named = (f"{kind}/{name}" for kind, name in pairs if kind.lower() in KIND_WORDS and not name.startswith("-"))
    return next(named, "")


def _tell_error(error: GenainetError) -> None:
    from kubectl_genainet.render.text import tell  # not before: it costs more than a --help

    tell(f"error: {error.message}")
    if error.hint:
        tell(f"  {error.hint}")


def main() -> None:
    """Runs the command line and turns errors into one message and an exit status.

    What was not written whole (a full disk) is a failure: half a page with status 0 would be taken for the answer.
    """
    _buffer_output()
    try:
        status = _status_of(sys.argv[1:] or ["--help"])
        sys.stdout.flush()  # not at the interpreter's end, which would say so with a status of its own
    except (BrokenOutput, BrokenPipeError) as error:
        status = ExitStatus.OK  # `| head`: the reader has what it wanted
        if not _reader_is_gone():
            _tell_error(GenainetError(f"a connection broke off: {error}"))
            status = ExitStatus.FAILED
        _drop_output()
    except OSError as error:
        _tell_error(_not_written(error))
        status = ExitStatus.FAILED
        _drop_output()
    except KeyboardInterrupt:
        status = ExitStatus.INTERRUPTED
        _drop_output()
    except Exception:  # a fault of ours is not "something found", which is the interpreter's status for it
        traceback.print_exc()
        status = ExitStatus.FAILED
    sys.exit(status)


def _reader_is_gone() -> bool:
    """Whether it is standard output that nobody reads."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poller.poll(0))


def _buffer_output() -> None:
    """Unbuffered (PYTHONUNBUFFERED), Python takes no notice of a disk that takes a part of what is written."""
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.RawIOBase):
        buffered = io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(buffered, sys.stdout.encoding, sys.stdout.errors, line_buffering=True)


def _not_written(error: OSError) -> GenainetError:
    reason = error.strerror or str(error)
    if error.filename:
        return GenainetError(f"{error.filename}: {reason}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return GenainetError(f"the output can't be written: {reason}", "What was written of it is not whole.")
    return GenainetError(reason)


def _drop_output() -> None:
    """What is still buffered goes nowhere: the interpreter writes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status_of(arguments: list[str]) -> int:
    try:
        status = cli.main(with_lab_named(arguments), prog_name="kubectl genainet", standalone_mode=False)
    except GenainetError as error:
        _tell_error(error)
        return error.exit_code
    except click.ClickException as error:
        from kubectl_genainet.render.text import tell

        shown = io.StringIO()
        error.show(shown)
        tell(*shown.getvalue().rstrip().split("\n"))
        target = joined_target(arguments) if isinstance(error, click.UsageError) else ""
        if target:
            tell(f"  A target is one word: {target}")
        return ExitStatus.FAILED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        what = f"the Python package {package} is not installed, and this command needs it"
        extra = f"'.[{EXTRAS[package]}]'"
        hint = f"From the checkout: pipx install --force {extra}, or uv tool install --force {extra}"
        _tell_error(GenainetError(what, hint))
        return ExitStatus.FAILED
    except (KeyboardInterrupt, click.Abort):
        return ExitStatus.INTERRUPTED
    return status if isinstance(status, int) else ExitStatus.OK
