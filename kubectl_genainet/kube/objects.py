"""`python3 -m kubectl_genainet.kube.objects`: records how the cluster's objects change.

`deploy --record` runs one in a cluster, without any privilege. It reads what the role genainet-view reads, and changes
nothing but its Lease.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubectl_genainet.agent.objects.recorder import ObjectsRecorder
from kubectl_genainet.agent.objects.server import ObjectsServer, Watch
from kubectl_genainet.agent.serve.auth import Capability
from kubectl_genainet.agent.serve.listening import serve_until_stopped
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.store import RecordingLimits
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.kube.incluster import ServiceAccountClient
from kubectl_genainet.kube.live import LiveCluster
from kubectl_genainet.kube.resources import KINDS
from kubectl_genainet.kube.snapshot import read_listings
from kubectl_genainet.model.cluster import ClusterSnapshot

REREAD_S = 600.0  # all kinds are read again so often: some may have come, and warnings (Events) are not watched
REREAD_AFTER_PROBLEM_S = 30.0
WATCHED = frozenset(kind for kind in KINDS if not kind.query)  # what is listed in part can't be watched in part
LEASE_S = 15
RENEW_S = 5.0


class ClusterObjects:
    """The cluster's objects as they change: watched, and read again now and then."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._live: LiveCluster | None = None
        self._read_at = 0.0
        self._problem = ""

    def newer(self) -> ClusterSnapshot | None:
        """The objects, where they may have changed. Raises GenainetError where they can't be read, or not be followed."""
        reread_s = REREAD_AFTER_PROBLEM_S if self._problem else REREAD_S
        if self._live is None or time.monotonic() - self._read_at >= reread_s:
            snapshot, listings = read_listings(self._client)
            if self._live is not None:
                self._live.close()
            self._problem = ""
            self._live = LiveCluster(
                self._client, self._note_problem, snapshot=snapshot, listings=listings, kinds=WATCHED
            )
            self._read_at = time.monotonic()
            return snapshot
        if self._problem:
            raise GenainetError(self._problem)
        return self._live.newer()

    def _note_problem(self, problem: str) -> None:
        self._problem = problem


class Lease:
    """coordination.k8s.io: who holds it records. Where it can't be had, somebody else does. It goes with the pod that holds it:
    `uid` is that pod's ("": it stays)."""

    def __init__(self, client: KubeClient, namespace: str, name: str, holder: str, uid: str = "") -> None:
        self._client, self._name, self._holder = client, name, holder
        owner = {"apiVersion": "v1", "kind": "Pod", "name": holder, "uid": uid}
        self._owners = [owner] if uid else []
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._seen: tuple[str, float] = ("", 0.0)  # renewTime of another's, and when it was first seen

    def hold(self) -> bool:
        """Takes or renews it; False while another holds it. Raises GenainetError where the API server can't be asked."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": LEASE_S, "renewTime": now, "acquireTime": now}
        try:
            lease = self._client.json("GET", f"{self._path}/{self._name}", doing="read the lease")
        except ApiError as error:
            if error.status != 404:
                raise
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "ownerReferences": self._owners},
                "spec": spec,
            }
            return self._write("POST", self._path, body)
        held: dict[str, Any] = lease.get("spec") or {}
        if held.get("holderIdentity") not in ("", None, self._holder) and not self._has_run_out(held):
            return False
        if held.get("holderIdentity") == self._holder:
            spec["acquireTime"] = held.get("acquireTime") or now
        metadata = {**lease["metadata"], "ownerReferences": self._owners}
        return self._write("PUT", f"{self._path}/{self._name}", {**lease, "metadata": metadata, "spec": spec})

    def _has_run_out(self, held: dict[str, Any]) -> bool:
        """By this clock, from when this renewal was seen first: the holder's clock may be another."""
        renewed = str(held.get("renewTime", ""))
        if renewed != self._seen[0]:
            self._seen = (renewed, time.monotonic())
        return time.monotonic() - self._seen[1] > int(held.get("leaseDurationSeconds") or LEASE_S)

    def _write(self, method: str, path: str, body: dict[str, Any]) -> bool:
        try:
            self._client.json(method, path, body, doing="take the lease")
        except ApiError as error:
            if error.status == 409:  # somebody was quicker
                return False
            raise
        return True


class HeldObjects:
    """The objects, as long as the lease is held."""

    def __init__(self, objects: ClusterObjects, lease: Lease | None) -> None:
        self._objects, self._lease = objects, lease
        self._renew_at = 0.0

    def newer(self) -> ClusterSnapshot | None:
        if self._lease is not None and time.monotonic() >= self._renew_at:
            if not self._lease.hold():
                raise GenainetError("another recorder of objects holds the lease")
            self._renew_at = time.monotonic() + RENEW_S
        return self._objects.newer()


def main() -> None:
    """Records until SIGTERM."""
    parser = argparse.ArgumentParser(prog="genainet-objects", description="Records how the cluster's objects change.")
    parser.add_argument("--listen", metavar="127.0.0.1:PORT", required=True)
    parser.add_argument("--token-file", required=True, help="capability of those who may read the recording")
    parser.add_argument("--record", metavar="DIR", required=True)
    parser.add_argument("--lease", default="", metavar="NAME")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    folder = Path(arguments.record)
    try:
        client = ServiceAccountClient()
        namespace, name = os.environ.get("POD_NAMESPACE", "default"), os.environ.get("POD_NAME", "genainet-objects")
        uid = os.environ.get("POD_UID", "")
        lease = Lease(client, namespace, arguments.lease, name, uid) if arguments.lease else None
        recorder = ObjectsRecorder(folder, RecordingLimits())
    except (GenainetError, OSError) as error:
        sys.exit(f"genainet-objects: {error}")
    watch = Watch(recorder, HeldObjects(ClusterObjects(client), lease).newer)
    server = ObjectsServer(folder, recorder, Capability(arguments.token_file), watch.seen.is_set)
    watch.start()
    asyncio.run(serve_until_stopped(server.handle, host=host, port=int(port)))
    watch.stop()


if __name__ == "__main__":
    threading.excepthook = lambda args: os._exit(1) if args.exc_type is not SystemExit else None
    main()
