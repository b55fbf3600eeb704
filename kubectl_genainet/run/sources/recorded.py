"""What was recorded earlier, from wherever it comes: all that a replay needs is a Bundle."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import msgspec

from kubectl_genainet.bundle import Bundle
from kubectl_genainet.context.account import warning_of
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.merge import OfVerb, of_verb
from kubectl_genainet.history.select import RecordPart
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.wire import FilterEntry

HISTORY = "history"  # the command in the header of a Bundle that has the records of all verbs; `diagnose` is another


def for_verb(bundle: Bundle, verb: str) -> Bundle:
    """Of a Bundle with the records of all verbs the part that the verb's own recording would have; another as it is."""
    if bundle.header.command not in (HISTORY, "diagnose") or verb not in (
        RecordPart.TRACE.value,
        RecordPart.DROPS.value,
        RecordPart.DNS.value,
    ):
        return bundle
    header = msgspec.structs.replace(bundle.header, command=verb)
    part = RecordPart(verb)
    held = isinstance(bundle.events, tuple)
    events = tuple(of_verb(bundle.events, part)) if held else OfVerb(bundle.events, part)
    return dataclasses.replace(bundle, header=header, events=events)


def unknown_objects(why: str, when: str) -> str:
    """What is said where the objects of a range were not recorded; `when`: what stands for them, after "as they"."""
    return (
        f"the cluster's objects of that time are not known, {why}: names and Services are as they {when}, "
        "policies are not known"
    )


def warn_of_events(bundle: Bundle, warn: Warn) -> None:
    """What the records of a range say that limits what can be known of it."""
    for event in bundle.events:
        if warning := warning_of(event):
            warn(warning)


class RecordedSource(Source):
    """A source that watches nothing: it answers from a Bundle, which is read once, at the first question."""

    live = False

    def __init__(self, *, namespace: str = "", all_namespaces: bool = False) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self._bundle: Bundle | None = None

    @abstractmethod
    def _load(self) -> Bundle: ...

    @property
    def recording(self) -> Bundle:
        if self._bundle is None:
            self._bundle = self._load()
        return self._bundle

    @property
    def moment(self) -> str:
        header = self.recorded_header
        return str(header.arguments.get("since", "")) if header is not None and header.command == HISTORY else ""

    def replayed(self, verb: str, filters: tuple[FilterEntry, ...]) -> Bundle:
        return for_verb(self.recording, verb)

    def endpoints_just_changed(self) -> Mapping[str, int]:
        return self.recording.header.just_changed

    def unknown_at_begin(self) -> tuple[str, ...]:
        return tuple(self.recording.header.unknown_at_begin)

    def _read(self) -> ClusterSnapshot:
        return self.recording.snapshot

    def node_reports(self, warn: Warn) -> Mapping[str, NodeReport]:
        """Of several reports of a node the last: its counters and queues are the newest."""
        return {event.node: event for event in self.recording.events if isinstance(event, NodeReport)}

    def rulesets(self, warn: Warn, *, conntrack: bool = False) -> Mapping[str, Sequence[RulesetDump]]:
        """Everything that was recorded. Raises GenainetError where no ruleset was."""
        if self.recording.header.command == HISTORY:
            warn_of_events(self.recording, warn)
            return self._rulesets_at_begin(self.recording)
        dumps: dict[str, list[RulesetDump]] = {}
        for event in self.recording.events:
            if isinstance(event, RulesetDump):
                dumps.setdefault(event.node, []).append(event)
        if not dumps:
            raise GenainetError(
                f"{self} holds no rulesets",
                hint="Record one with `kubectl genainet trace TARGET --record FILE`.",
            )
        return dumps

    def _rulesets_at_begin(self, bundle: Bundle) -> Mapping[str, Sequence[RulesetDump]]:
        """Every node's rules as they were at the range's begin. Raises GenainetError where none were recorded."""
        dumps: dict[str, dict[str, RulesetDump]] = {}
        for event in bundle.events:
            if isinstance(event, RulesetDump):
                dumps.setdefault(event.node, {}).setdefault(event.source, event)
        if not dumps:
            raise GenainetError(f"no node's rules are recorded in {self}")
        return {node: list(by_source.values()) for node, by_source in dumps.items()}

    def node_addresses(self) -> Mapping[str, Sequence[str]]:
        """From the nodes' reports where there are any, else from the API objects."""
        reports = self.node_reports(lambda _: None)
        known = {r.node: [ip for ns in r.namespaces if ns.host for ip in ns.addresses] for r in reports.values()}
        return known or super().node_addresses()
