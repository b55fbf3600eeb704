"""`kubectl_complete-genainet`: kubectl runs it for completion of the plugin's command line (Kubernetes 1.26).

kubectl passes the words after `kubectl genainet`, the last one unfinished; the answer is a candidate a line, a tab
before its description, and at the end cobra's directive (":4": no file names). Whatever fails completes to nothing: a
shell prompt is no place for errors.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from kubectl_genainet.cli import VERBS, cli

if TYPE_CHECKING:
    from kubectl_genainet.run.sources.choice import SourceChoice

NO_FILES, FILES = ":4", ":0"
_TIMEOUT_S = 2.0
DEADLINE_S = 5.0  # of all of it: an API server that trickles, a credential plugin that asks for something
_GRACE_S = 0.5  # after it, to stop a plugin and say that there is nothing
_TARGETS = {
    "svc": "/api/v1/{}services",
    "pod": "/api/v1/{}pods",
    "deploy": "/apis/apps/v1/{}deployments",
    "sts": "/apis/apps/v1/{}statefulsets",
    "ds": "/apis/apps/v1/{}daemonsets",
    "job": "/apis/batch/v1/{}jobs",
}
_KINDS = {
    "services": "Service",
    "pods": "Pod",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "jobs": "Job",
    "namespaces": "Namespace",
    "nodes": "Node",
}
_POD_OPTIONS = {"from_pod"}


def main() -> None:
    """Reads the command line, prints candidates; always succeeds."""
    *words, incomplete = sys.argv[1:] or [""]
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    try:
        lines, directive = complete(words, incomplete)
    except Exception:  # see above
        lines, directive = [], NO_FILES
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("\n".join([*lines, directive]))


def _too_late(*_: object) -> None:
    """Ends the wait, and soon the program, where the error reached somebody who goes on (a module that is optional)."""
    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, _GRACE_S)
    raise TimeoutError


def _end(*_: object) -> None:
    os.write(sys.stdout.fileno(), f"{NO_FILES}\n".encode())
    os._exit(0)


def complete(words: list[str], incomplete: str) -> tuple[list[str], str]:
    """The candidates for the last word and cobra's directive, given the words before it."""
    context = _context(words)
    param, incomplete = _wanted(context, words, incomplete)
    if param is cli and not incomplete.startswith("-"):
        return [f"{verb}\t{text}" for verb, (_, text) in VERBS.items() if verb.startswith(incomplete)], NO_FILES
    if isinstance(param, click.Parameter):
        names = _from_cluster(param, context, incomplete)
        if names is not None:
            return sorted(filter(_is_word, (n for n in names if n.startswith(incomplete)))), NO_FILES
    items = param.shell_complete(context, incomplete)
    if any(item.type in ("file", "dir") for item in items):
        return [], FILES
    return [_line(item) for item in items], NO_FILES


def _is_word(name: str) -> bool:
    """Whether a shell takes the name for one word, as it is, and the plugin for no option: a kubeconfig that somebody sent may
    hold any. "=ls" is the path of ls to zsh."""
    return name[:1].isalnum() and shlex.quote(name) == name


def _context(words: list[str]) -> click.Context:
    """The context of the innermost command that the words name, its parameters as far as they are given."""
    context = cli.make_context("kubectl genainet", [], resilient_parsing=True)
    command: click.Command = cli
    while isinstance(command, click.Group):
        index = next((i for i, word in enumerate(words) if not word.startswith("-")), None)
        subcommand = command.get_command(context, words[index]) if index is not None else None
        if subcommand is None or index is None:
            return context
        name, words, command = words[index], words[index + 1 :], subcommand
        arguments = [] if isinstance(subcommand, click.Group) else list(words)
        context = subcommand.make_context(name, arguments, parent=context, resilient_parsing=True)
    return context


def _wanted(context: click.Context, words: list[str], incomplete: str) -> tuple[click.Command | click.Parameter, str]:
    """What the unfinished word is: the value of an option or an argument, or the command's own (an option, a verb)."""
    options = [p for p in context.command.get_params(context) if isinstance(p, click.Option)]

    def takes_value(word: str) -> click.Option | None:
        return next((o for o in options if word in o.opts and not o.is_flag and not o.count), None)

    name, equals, value = incomplete.partition("=")
    if equals and name.startswith("--") and (option := takes_value(name)) is not None:
        return option, value
    if incomplete.startswith("-") and "--" not in words:
        return context.command, incomplete
    if words and (before := takes_value(words[-1])) is not None:
        return before, incomplete
    for param in context.command.get_params(context):
        if isinstance(param, click.Argument) and (param.nargs == -1 or not context.params.get(param.name or "")):
            return param, incomplete
    return context.command, incomplete


def _line(item: CompletionItem) -> str:
    return f"{item.value}\t{item.help}" if item.help else str(item.value)


def _from_cluster(param: click.Parameter, context: click.Context, incomplete: str) -> Iterable[str] | None:
    """Names that only the cluster (or the kubeconfig) knows; None for a parameter that has no such values."""
    if param.name == "context":
        return _contexts(context)
    if param.name in ("lab", "name") and isinstance(param, click.Option) and "--lab" in param.opts:
        from kubectl_genainet.lab.state import lab_names

        return lab_names()
    if param.name == "clients":
        return list(_targets(context, incomplete))
    if param.name in ("servers", "bundle"):
        return list(_targets(context, incomplete)) if "/" in incomplete or param.name == "servers" else None
    if param.name == "namespace":
        return _names(context, "/api/v1/namespaces")
    if param.name == "node":
        return _names(context, "/api/v1/nodes")
    if param.name in _POD_OPTIONS:
        return [f"pod/{name}" for name in _names(context, "/api/v1/{}pods")]
    if isinstance(param, click.Argument) and context.command.name == "rules" and param.name == "flow":
        return [end for end in _targets(context, incomplete) if end.startswith(("pod/", "svc/"))]
    if isinstance(param, click.Argument) and param.name and "target" in param.name:
        return [*_targets(context, incomplete), *(["why"] if context.command.name == "rules" else ())]
    return None


def _targets(context: click.Context, incomplete: str) -> Iterator[str]:
    kind, slash, _ = incomplete.partition("/")
    if not slash:
        yield from (f"{kind}/" for kind in _TARGETS)
    elif kind in _TARGETS:
        yield from (f"{kind}/{name}" for name in _names(context, _TARGETS[kind]))


def _contexts(context: click.Context) -> list[str]:
    from kubectl_genainet.kube.client import context_names

    return context_names(kubeconfig=context.params.get("kubeconfig") or "")


def _names(context: click.Context, path: str) -> list[str]:
    """Names of the objects at a path; "{}" in it takes the namespace of the command line, or the context's."""
    choice = _choice(context)
    return _names_in_cluster(context, path) if choice.is_cluster else _names_in(choice, path)


def _choice(context: click.Context) -> SourceChoice:
    """Where the command line says that the objects are."""
    from kubectl_genainet.commands.options import split_from
    from kubectl_genainet.run.sources.choice import SourceChoice

    bundle = context.params.get("bundle") or ""
    return SourceChoice(
        bundle=bundle if isinstance(bundle, str) else split_from(bundle)[0] or "",
        lab=context.params.get("lab") or "",
        manifests=tuple(context.params.get("manifests") or ()),
        namespace=context.params.get("namespace") or "",
        all_namespaces=bool(context.params.get("all_namespaces")),
    )


def _names_in(choice: SourceChoice, path: str) -> list[str]:
    """Names in a lab, a bundle or manifests; none of what can't be read again (standard input) or takes long (a table)."""
    from kubectl_genainet.run.sources.choice import is_table

    if is_table(choice.bundle) or "-" in choice.manifests:
        return []
    source = choice.open(lambda _: None)
    group = path.split("/")[2] if path.startswith("/apis/") else ""
    plural = path.rpartition("/")[2]
    namespaced = plural.startswith("{}")
    kind = _KINDS[plural.removeprefix("{}")]
    where = source.scope_namespace if namespaced else ""
    return [obj.name for obj in source.snapshot().of(kind, group) if where in ("", obj.namespace)]


def _names_in_cluster(context: click.Context, path: str) -> list[str]:
    from kubectl_genainet.kube.client import connect
    from kubectl_genainet.model.user import Impersonation

    source_parameters = {name: context.params.get(name) or "" for name in ("context", "kubeconfig", "as_user")}
    user = Impersonation(source_parameters["as_user"], tuple(context.params.get("as_groups") or ()))
    client = connect(
        context=source_parameters["context"],
        kubeconfig=source_parameters["kubeconfig"],
        timeout_s=_TIMEOUT_S,
        user=user,
        within_s=DEADLINE_S,
        may_ask=False,
    )
    everywhere = bool(context.params.get("all_namespaces"))
    namespace = "" if everywhere else f"namespaces/{context.params.get('namespace') or client.namespace}/"
    items = client.get(path.format(namespace), limit="500").get("items") or []
    return [item["metadata"]["name"] for item in items]


if __name__ == "__main__":
    main()
