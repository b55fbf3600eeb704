"""Whose packets: workloads and Services by what the node itself knows (namespaces, pod UIDs) and by a file of identities.

The agent asks no API (docs/adr/0040-capability-secret.md): who writes the file is docs/adr/0053-names-by-a-sidecar.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS
from kubectl_genainet.model.identities import UNKNOWN, Identities, Owner
from kubectl_genainet.model.node import NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol

# The node's own network namespace. Not "": to Prometheus that is no label, and it would put the agent's own there.
NODE = Owner("none", "node")
NOBODY = Owner(UNKNOWN, UNKNOWN)
MAX_FILE = 16 << 20


class Owners:
    """Answers by the last report of the node's namespaces, and by the file as it is now (`reload`)."""

    def __init__(self, path: str = "") -> None:
        self.identities = Identities()
        self.error = ""
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._in: dict[int, Owner] = {}
        self._at: dict[str, Owner] = {}
        self._report: NodeReport | None = None

    def reload(self) -> None:
        """Reads the file where it has changed; one that can't be read leaves what was known, and `error` says why."""
        if not self._path:
            return
        try:
            status = os.stat(self._path)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            if status.st_size > MAX_FILE:
                raise ValueError(f"it is larger than {MAX_FILE} bytes")
            self.identities = msgspec.json.decode(Path(self._path).read_bytes(), type=Identities)
            self._version, self.error = version, ""
        except (OSError, *DECODE_ERRORS) as error:
            self.error = f"{self._path}: {error}"
            return
        if self._report is not None:
            self.learn(self._report)

    def learn(self, report: NodeReport) -> None:
        """Takes in the node's namespaces. A pod's UID, from its cgroup, goes before an address, which may be used again."""
        self._report = report
        self._in, self._at = {}, {}
        for netns in report.namespaces:
            owner = NODE if netns.host else self._owner_of(netns)
            self._in[netns.inode] = owner
            self._at |= dict.fromkeys(netns.addresses, owner)

    def _owner_of(self, netns: NetNs) -> Owner:
        known = self.identities
        for uid in netns.pod_uids:
            if uid in known.uids:
                return known.uids[uid]
        if netns.pod_uids:
            return Owner(UNKNOWN, f"uid:{netns.pod_uids[0]}")
        return next((known.addresses[ip] for ip in netns.addresses if ip in known.addresses), NOBODY)

    def at(self, ip: str) -> Owner:
        """Who has the address: a namespace of this node, else whom the file names."""
        return self._at.get(ip) or self.identities.addresses.get(ip, NOBODY)

    def concerned(self, netns: int, flow: FiveTuple) -> Owner:
        """Whom an event concerns: the pod in whose namespace it was; on the node, the destination's, else the source's."""
        owner_inside = self._in.get(netns, NOBODY)
        if owner_inside not in (NODE, NOBODY):
            return owner_inside
        ends = [owner for ip in (flow.dst, flow.src) if (owner := self.at(ip)) not in (NODE, NOBODY)]
        return ends[0] if ends else owner_inside

    def service(self, flow: FiveTuple) -> str:
        """The Service that the flow's destination, after any translation, is a backend of."""
        return self.identities.service_of(flow)

    def backend(self, flow: FiveTuple) -> str:
        """The backend as "ADDRESS:PORT"."""
        return flow.destination if flow.protocol is not Protocol.UNKNOWN else flow.dst
