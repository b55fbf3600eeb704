"""Commands that results suggest, with the options that say where this run's facts came from: they run as they are printed."""

from __future__ import annotations

import re
import shlex

import msgspec

from kubectl_genainet.model.finding import Finding, Remedy
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.model.results.path import Drop, PacketPath
from kubectl_genainet.run.sources.base import Source

PLUGIN = "kubectl genainet "
_IN_PROSE = re.compile(rf"`({PLUGIN}[^`]+)`")


class AsUsed:
    """Adds a source's options to the commands of this plugin; other commands are left alone."""

    def __init__(self, source: Source) -> None:
        self._options = source.options

    def command(self, text: str) -> str:
        """One command; "" stays ""."""
        if not text.startswith(PLUGIN) or "\n" in text or text.startswith(f"{PLUGIN}lab "):
            return text
        arguments = shlex.split(text)
        missing = [option for option in self._options if option[0] not in arguments]
        return " ".join((text, *(word for option in missing for word in option)))

    def remedy(self, remedy: Remedy | None) -> Remedy | None:
        if remedy is None or PLUGIN not in f"{remedy.command}{remedy.text}":
            return remedy
        text = _IN_PROSE.sub(lambda found: f"`{self.command(found[1])}`", remedy.text)
        return msgspec.structs.replace(remedy, text=text, command=self.command(remedy.command))

    def drop(self, drop: Drop | None) -> Drop | None:
        if drop is None or drop.remedy is None:
            return drop
        return msgspec.structs.replace(drop, remedy=self.remedy(drop.remedy))

    def findings(self, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return tuple(
            msgspec.structs.replace(finding, remedy=self.remedy(finding.remedy)) if finding.remedy else finding
            for finding in findings
        )

    def path(self, path: PacketPath) -> PacketPath:
        return msgspec.structs.replace(path, drop=self.drop(path.drop), findings=self.findings(path.findings))

    def row(self, row: DropRow) -> DropRow:
        return msgspec.structs.replace(row, drop=self.drop(row.drop)) if row.drop else row

    def conclusion(self, conclusion: Conclusion) -> Conclusion:
        causes = tuple(msgspec.structs.replace(c, remedy=self.remedy(c.remedy)) for c in conclusion.causes)
        return msgspec.structs.replace(conclusion, causes=causes, next=tuple(map(self.command, conclusion.next)))
