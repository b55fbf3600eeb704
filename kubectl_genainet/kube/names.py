"""`python3 -m kubectl_genainet.kube.names`: keeps the file of names that an agent reads for its metrics as the cluster is.

Runs with `deploy --metrics` in a container of its own beside the agent, without any capability, and is the only one of
the two that has a token (docs/adr/0053-names-by-a-sidecar.md). It keeps what names need of each object and nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from kubectl_genainet.context.identities import identities, pod_name, service_name, slice_name
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.incluster import ServiceAccountClient
from kubectl_genainet.kube.resources import ENDPOINT_SLICE, POD, SERVICE, Served, discover
from kubectl_genainet.kube.watch import Selection, SelectionFollower
from kubectl_genainet.model.kube import EndpointSlice, KubeObject, Pod, Service

SETTLE_S = 1.0  # changes come together: a Deployment's pods, their endpoints
REFRESH_S = 30.0  # how often the file says that it is still true
SHARE = 20  # writing the file may take one part in so many of the time
RETRY_S = (1.0, 30.0)
MAX_KEPT = 50_000  # of each kind: about 30 MB, and 12 MB of file
NAMED = (POD, SERVICE, ENDPOINT_SLICE)
_REDUCE: dict[str, Callable[[KubeObject], Any]] = {
    POD.kind: lambda obj: pod_name(obj.decode(Pod)),
    SERVICE.kind: lambda obj: service_name(obj.decode(Service)),
    ENDPOINT_SLICE.kind: lambda obj: slice_name(obj.decode(EndpointSlice)),
}


class Names:
    """What is known of each kind, fed by the threads that follow it."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        self.changed = threading.Event()
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Any, ...]] = dict.fromkeys(_REDUCE, ())
        self._problems: dict[str, str] = dict.fromkeys(_REDUCE, "not read yet")
        self._true_at = 0.0
        self._too_many: set[str] = set()

    def follow(self, client: KubeClient, served: Served) -> SelectionFollower[Any]:
        kind = served.resource.kind
        return SelectionFollower(
            client,
            Selection(served),
            _reduced,
            lambda kept: self.learn(kind, kept),
            lambda problem: self.tell(kind, problem),
            persistent=True,
        )

    def learn(self, kind: str, kept: Mapping[Any, Any]) -> None:
        """All that is known of a kind now. What is beyond the bound has no names, which is said once."""
        with self._lock:
            values = tuple(kept.values())
            if len(values) > self._most and kind not in self._too_many:
                self._too_many.add(kind)
                _say(f"the cluster has {len(values)} {kind} objects: only {self._most} of them get names")
            self._known[kind] = values[: self._most]
            self._problems[kind] = ""
        self.changed.set()

    def tell(self, kind: str, problem: str) -> None:
        """What keeps a kind from being followed, "" where it is over."""
        _say(f"{kind}: {problem}" if problem else f"{kind}: followed again")
        with self._lock:
            self._problems[kind] = problem
        self.changed.set()

    def encode(self, now: float) -> bytes:
        """The file's content; b"" while not every kind was read once. Its time is when all kinds were last followed."""
        with self._lock:
            if not any(self._problems.values()):
                self._true_at = now
            known, true_at = dict(self._known), self._true_at
        if not true_at:
            return b""
        pods, services, slices = (known[resource.kind] for resource in NAMED)
        return msgspec.json.encode(identities(pods, services, slices, true_at))


def _reduced(obj: KubeObject) -> Any:
    try:
        return _REDUCE[obj.kind](obj)
    except (GenainetError, ValueError) as error:  # one object that can't be read must not cost the names of all others
        _say(f"{obj.kind} {obj.namespace}/{obj.name} has no names: {error}")
        return None


def write(path: Path, content: bytes) -> None:
    """Replaces the file in one step: its reader sees the old or the new."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.chmod(0o644)
    os.replace(part, path)


def served_kinds(client: KubeClient, stop: threading.Event) -> list[Served]:
    """What to follow, as the server offers it; asks until the server answers or `stop` is set."""
    pause, most = RETRY_S
    while not stop.is_set():
        try:
            return discover(client, NAMED)[0]
        except GenainetError as error:
            _say(error.message)
        stop.wait(pause)
        pause = min(2 * pause, most)
    return []


def keep(path: Path, client: KubeClient, stop: threading.Event) -> None:
    """Keeps the file until `stop` is set. An API server that can't be reached is said and asked again."""
    names = Names()
    followers = [names.follow(client, served) for served in served_kinds(client, stop)]
    pause = SETTLE_S
    while not stop.is_set():
        names.changed.wait(REFRESH_S)
        stop.wait(pause)
        names.changed.clear()
        began = time.monotonic()
        content = names.encode(time.time())
        if content:
            write(path, content)
        pause = max(SETTLE_S, SHARE * (time.monotonic() - began))
    for follower in followers:
        follower.close()


def _say(text: str) -> None:
    sys.stderr.write(f"genainet-names: {text}\n")  # in one piece: several threads speak
    sys.stderr.flush()


def main() -> None:
    """Entry point of the container; ends at SIGTERM."""
    parser = argparse.ArgumentParser(prog="genainet-names", description="Keeps an agent's file of names.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file, replaced at each change")
    path = parser.parse_args().out
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # there is nothing to clean up
    try:
        keep(path, ServiceAccountClient(), threading.Event())
    except (GenainetError, OSError) as error:
        sys.exit(f"genainet-names: {error}")


if __name__ == "__main__":
    main()
