"""Commands that results suggest, with the options that say where this run's facts came from: they run as they are printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.finding import Finding, Remedy
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.model.results.path import Drop, PacketPath

Options = tuple[tuple[str, ...], ...]  # as Source.options has them, quoted for a shell

PLUGIN = "kubectl genainet "
_IN_PROSE = re.compile(r"`(kubectl [^`]+)`")
_KUBECTL = re.compile(r"((?:^|[|;&(])[ \t]*)kubectl (?!genainet\b)", re.MULTILINE)
_OF_KUBECTL = ("--context", "--kubeconfig", "--as", "--as-group")
_RECORDED = ("--from", "--since", "--at", "--for", "--until")
_LIVE = ("--record", "--exact", "--check")  # what needs packets of now
_OF_AGENTS = {"deploy": _OF_KUBECTL, "undeploy": _OF_KUBECTL, "status": (*_OF_KUBECTL, "--lab")}
_WATCHING = ("trace", "drops", "dns", "fabric", "diagnose")
_OF_A_MOMENT = ("rules", "explain")  # they show the begin of a time that has passed
_RANGE = ("--since", "--at", "--for", "--until")
_LATER = timedelta(seconds=2)  # what a packet died by may have been seen to change that much later
_OF_THE_PAST = ("trace", "drops", "dns", "rules", "explain", "diagnose", "timeline")


class AsUsed:
    """Adds a source's options to commands: to this plugin's those that the verb takes, to kubectl's own those that say which
    cluster it is, since the current context may be another. `watched`: the source has what the verbs that watch read."""

    def __init__(self, options: Options, *, watched: bool = True) -> None:
        self._options, self._watched = options, watched
        self._cluster = " ".join(word for option in options if option[0] in _OF_KUBECTL for word in option)

    def command(self, text: str, happened: str = "") -> str:
        """One command; "" stays "". `happened` is when (RFC 3339) what it is about was: of a time that has passed the begin tells
        nothing of that."""
        if not text.startswith(PLUGIN):
            return _KUBECTL.sub(lambda found: f"{found[1]}kubectl {self._cluster} ", text) if self._cluster else text
        if "\n" in text or text.startswith(f"{PLUGIN}lab "):
            return text
        arguments = shlex.split(text)
        missing = [
            option for option in self._options_of(arguments[2], happened) if self._is_missing(option[0], arguments)
        ]
        return " ".join((text, *(word for option in missing for word in option)))

    def _options_of(self, verb: str, happened: str) -> Options:
        until = next((option[1] for option in self._options if option[0] == "--until"), "")
        if not (until and happened and verb in _OF_A_MOMENT):
            return self._options
        at = min(datetime.fromisoformat(happened) + _LATER, datetime.fromisoformat(until) - timedelta(seconds=1))
        others = tuple(option for option in self._options if option[0] not in _RANGE)
        return (*others, ("--at", at.astimezone().replace(microsecond=0).isoformat()))

    def _is_missing(self, option: str, arguments: list[str]) -> bool:
        verb = arguments[2]
        if option in arguments or (option == "-n" and "-A" in arguments):
            return False
        if option in _RANGE and any(word in _RANGE for word in arguments):
            return False
        if verb in _OF_AGENTS:
            return option in _OF_AGENTS[verb]
        if option == "--manifests":
            return verb not in _WATCHING
        if option in _RECORDED:
            of_now = (not self._watched and verb in _WATCHING) or any(word in _LIVE for word in arguments)
            return not of_now and (option == "--from" or verb in _OF_THE_PAST)
        return True

    def prose(self, text: str, happened: str = "") -> str:
        """A sentence with commands between backquotes, or a command alone."""
        if text.startswith(PLUGIN):
            return self.command(text, happened)
        return _IN_PROSE.sub(lambda found: f"`{self.command(found[1], happened)}`", text)

    def remedy(self, remedy: Remedy | None, happened: str = "") -> Remedy | None:
        if remedy is None or not self._options:
            return remedy
        text, command = self.prose(remedy.text, happened), self.command(remedy.command, happened)
        return msgspec.structs.replace(remedy, text=text, command=command)

    def drop(self, drop: Drop | None, happened: str) -> Drop | None:
        if drop is None or drop.remedy is None:
            return drop
        return msgspec.structs.replace(drop, remedy=self.remedy(drop.remedy, happened))

    def findings(self, findings: tuple[Finding, ...], happened: str = "") -> tuple[Finding, ...]:
        return tuple(
            msgspec.structs.replace(finding, remedy=self.remedy(finding.remedy, happened))
            if finding.remedy
            else finding
            for finding in findings
        )

    def path(self, path: PacketPath) -> PacketPath:
        drop, findings = self.drop(path.drop, path.time), self.findings(path.findings, path.time)
        return msgspec.structs.replace(path, drop=drop, findings=findings)

    def row(self, row: DropRow) -> DropRow:
        return msgspec.structs.replace(row, drop=self.drop(row.drop, row.time)) if row.drop else row

    def conclusion(self, conclusion: Conclusion) -> Conclusion:
        causes = tuple(
            msgspec.structs.replace(c, remedy=self.remedy(c.remedy, c.example.time if c.example else ""))
            for c in conclusion.causes
        )
        return msgspec.structs.replace(conclusion, causes=causes, next=tuple(map(self.command, conclusion.next)))


@contextmanager
def errors_as_used(options: Callable[[], Options]) -> Iterator[None]:
    """What an error says to run has the options too."""
    try:
        yield
    except GenainetError as error:
        used = AsUsed(options())
        error.message, error.hint = used.prose(error.message), used.prose(error.hint)
        raise
