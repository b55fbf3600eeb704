"""Why files of manifests hold no object, for the error of a run that has none."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.finding import counted, listed

IN_KUSTOMIZATION = "part of a kustomization that gives no object"
IN_CHART = "part of a Helm chart, which is not rendered"
_EMPTY = "empty, or comments only"
_EXAMPLES = 2  # files that are named for each reason


class UnusedFiles:
    """What was looked at, and why each left nothing. `problem` tells of a document, `file` of the file that ends with it."""

    def __init__(self) -> None:
        self._files: list[tuple[str, str]] = []  # name, reason
        self._problems: list[InputError] = []
        self._told = 0  # of the problems: those of the files before
        self._hint = ""

    def problem(self, error: InputError) -> None:
        self._problems.append(error)
        self._hint = self._hint or error.hint

    def hint(self, text: str) -> None:
        """What to do about it, where no problem says so."""
        self._hint = self._hint or text

    def file(self, name: str, reason: str = "") -> None:
        """A file is through. `reason` is why it was not opened; else it is the first problem told since the last file."""
        problems = self._problems[self._told :]
        self._told = len(self._problems)
        self._files.append((name, reason or (problems[0].problem if problems else _EMPTY)))

    def error(self, paths: Sequence[str]) -> InputError:
        """There is no object in any of the paths: one file's own problem, or how many files there were of each reason."""
        where = listed(["standard input" if path == "-" else path for path in paths])
        text = f"there is no Kubernetes object in {where}"
        if [name for name, _ in self._files] != list(paths) or len(paths) > 1:
            folder = f"{paths[0].rstrip('/')}/" if len(paths) == 1 else ""
            text += f": {counted(len(self._files), 'file')} looked at, {'; '.join(self._reasons(folder))}"
        elif self._problems:
            return self._problems[0]
        return InputError(text, hint=self._hint)

    def _reasons(self, folder: str) -> list[str]:
        """Each kind of reason with its files, named from the folder on."""
        kinds: dict[str, dict[str, str]] = {}
        for name, reason in self._files:
            kinds.setdefault(reason.partition(":")[0], {})[name.removeprefix(folder)] = reason
        told = []
        for kind, reasons in kinds.items():
            whole = set(reasons.values())
            told.append(
                f"{len(reasons)} {whole.pop() if len(whole) == 1 else kind} ({listed(list(reasons), _EXAMPLES)})"
            )
        return told
