"""The interface of all sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

from kubectl_genainet.bundle import Bundle, Header
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.run.agents import Agents, Warn, read_nodes, read_rulesets
from kubectl_genainet.run.sources.extensions import load_extensions
from kubectl_genainet.wire import FilterEntry

CHDB = "chdb:"  # begins the name of a folder of segments


class Follower(Protocol):
    """The cluster's state as it changes."""

    def newer(self) -> ClusterSnapshot | None:
        """The state, where it has changed since the last call; else None."""

    def close(self) -> None: ...


class Source(ABC):
    """Where a run reads the cluster's objects, and its packets and node reports where there are any.

    `namespace` is the one that was asked for ("" where none was); `all_namespaces` asks for all of them. The snapshot is
    read once, at the first call. A source raises GenainetError for what it does not have; it never answers with
    something empty that would look like a finding.
    """

    def __init__(self, *, namespace: str = "", all_namespaces: bool = False) -> None:
        load_extensions()
        self.namespace, self.all_namespaces = namespace, all_namespaces
        self.failed_nodes: set[str] = set()  # whose agent did not answer, or could not go on
        self._snapshot: ClusterSnapshot | None = None

    def snapshot(self, *, whole: bool = False) -> ClusterSnapshot:
        """The cluster's objects, as they were when they were first asked for.

        A live cluster is asked for the kinds that only checks need where `whole` is set: for checks, and for a recording,
        of which others may ask anything. Until then `left_out` names these kinds.
        """
        if self._snapshot is None:
            self._snapshot = self._read()
        return self._snapshot

    def update(self, snapshot: ClusterSnapshot) -> None:
        """The objects have changed: `snapshot` has them from now on."""
        self._snapshot = snapshot

    def forget(self) -> None:
        """The objects are read anew when they are asked for next."""
        self._snapshot = None

    @abstractmethod
    def _read(self) -> ClusterSnapshot: ...

    @property
    @abstractmethod
    def live(self) -> bool:
        """Whether it has agents that watch packets now."""

    @property
    def options(self) -> tuple[tuple[str, ...], ...]:
        """The options of the command line that name this source, for commands that are suggested; quoted for a shell."""
        return (*self._own_options, *((("-n", self.namespace),) if self.namespace else ()))

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        return ()

    @property
    def default_namespace(self) -> str:
        """The namespace of names that are given without one."""
        return self.namespace or "default"

    @property
    def scope_namespace(self) -> str:
        """The namespace that a run without a target looks at; "" for all of them."""
        return "" if self.all_namespaces else self.default_namespace

    @property
    def judged_namespace(self) -> str:
        """The namespace whose objects `doctor` judges; "" for all of them, unless one was asked for."""
        return "" if self.all_namespaces else self.namespace

    @property
    def recording(self) -> Bundle | None:
        """What was recorded, where the source is a recording."""
        return None

    @property
    def length_s(self) -> float | None:
        """How long a time the source is about, where that is a time that has passed."""
        return None

    @property
    def recorded_header(self) -> Header | None:
        """What the recording says of itself."""
        return self.recording.header if self.recording is not None else None

    def replayed(self, verb: str, filters: tuple[FilterEntry, ...]) -> Bundle | None:
        """Of what was recorded the part that `verb` reads; `filters` is what it would have its agents follow. None where the
        source is no recording."""
        return self.recording

    def recorders(self) -> Agents:
        """The agents as those reach them who may read what they recorded."""
        return self.agents()

    def endpoints_just_changed(self) -> Mapping[str, int]:
        """The Services ("namespace/name") whose endpoints changed so shortly before a time that has passed that the rules which
        nodes told until then may be older, and when (ns since 1970)."""
        return {}

    @property
    def moment(self) -> str:
        """The time (RFC 3339) of which rules and objects are shown, where a time that has passed was asked for; else ""."""
        return ""

    def unknown_at_begin(self) -> tuple[str, ...]:
        """What is missing of the cluster's objects at the begin of a time that has passed: the snapshot is older then."""
        return ()

    def objects_recorder(self) -> Agents | None:
        """How the recorder of the cluster's objects is reached; None where there is none."""
        return None

    def agents(self) -> Agents:
        """Raises GenainetError where the source has no agents."""
        raise GenainetError(
            f"no agents can be asked in {self}, so no packets can be watched",
            hint="Use a cluster, a lab, or a bundle of this command.",
        )

    def follow(self, snapshot: ClusterSnapshot, warn: Warn) -> Follower:
        """The state from `snapshot` on. `warn` may be called from another thread."""
        raise GenainetError(f"{self} does not change")

    def node_reports(self, warn: Warn) -> Mapping[str, NodeReport]:
        """Every node's report. A node that fails is warned of and left out; raises GenainetError where all fail."""
        return read_nodes(self.agents(), warn, self.failed_nodes)

    def rulesets(self, warn: Warn, *, conntrack: bool = False) -> Mapping[str, Sequence[RulesetDump]]:
        """Every node's rulesets, with its translated connections if asked; failures as in `node_reports`."""
        return read_rulesets(self.agents(), warn, self.failed_nodes, conntrack=conntrack)

    def node_addresses(self) -> Mapping[str, Sequence[str]]:
        """The nodes' own addresses, as far as the source knows them."""
        return {node.metadata.name: list(node.ips) for node in self.snapshot().nodes}

    @abstractmethod
    def __str__(self) -> str:
        """As messages name it."""
