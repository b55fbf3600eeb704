"""What changed on the node between two reports of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubectl_genainet.model.history import ChangeOf, NodeChange
from kubectl_genainet.model.node import NetNs, NodeReport

NEARLY_FULL = 0.9  # of conntrack's table
MAX_CHANGES = 500  # of one report


def changes(before: NodeReport, after: NodeReport, since_ns: int, at_ns: int) -> list[NodeChange]:
    """At most MAX_CHANGES. A namespace is identified by its inode number."""
    old = {netns.inode: netns for netns in before.namespaces}
    new = {netns.inode: netns for netns in after.namespaces}
    changed: list[NodeChange] = []
    for inode in old.keys() | new.keys():
        for what, subject, was, now in _of_namespace(old.get(inode), new.get(inode)):
            if len(changed) >= MAX_CHANGES:
                return changed
            netns = new.get(inode) or old[inode]
            changed.append(
                NodeChange(
                    node=after.node,
                    at_ns=at_ns,
                    since_ns=since_ns,
                    what=what,
                    subject=subject,
                    before=was,
                    after=now,
                    pod_uid=netns.pod_uids[0] if netns.pod_uids else "",
                    netns=inode,
                )
            )
    return changed


def _of_namespace(old: NetNs | None, new: NetNs | None) -> Iterator[tuple[ChangeOf, str, str, str]]:
    """(what, subject, before, after)."""
    if old is None or new is None:
        known = new or old
        assert known is not None
        if known.pod_uids:
            there = "running"
            yield ChangeOf.POD, known.pod_uids[0], there if old else "", there if new else ""
    yield from _differences(ChangeOf.ADDRESS, _addresses(old), _addresses(new))
    yield from _differences(ChangeOf.DEVICE, _devices(old), _devices(new))
    if (old is None or old.routes is not None) and (new is None or new.routes is not None):
        yield from _differences(ChangeOf.ROUTE, _routes(old), _routes(new))
    if old is not None and new is not None:
        yield from _grown(old, new)


def _differences(
    what: ChangeOf, old: Mapping[str, str], new: Mapping[str, str]
) -> Iterator[tuple[ChangeOf, str, str, str]]:
    for subject in sorted(old.keys() | new.keys()):
        was, now = old.get(subject, ""), new.get(subject, "")
        if was != now:
            yield what, subject, was, now


def _addresses(netns: NetNs | None) -> dict[str, str]:
    return {ip: device.name for device in netns.devices for ip in device.addresses} if netns else {}


def _devices(netns: NetNs | None) -> dict[str, str]:
    if netns is None:
        return {}
    return {d.name: f"{d.kind or 'device'}, {'up' if d.up else 'down'}, MTU {d.mtu}" for d in netns.devices}


def _routes(netns: NetNs | None) -> dict[str, str]:
    routes = netns.routes if netns is not None and netns.routes is not None else ()
    return {
        r.dst: f"{f'via {r.via} ' if r.via else ''}dev {r.device}{f', MTU {r.mtu}' if r.mtu else ''}" for r in routes
    }


def _grown(old: NetNs, new: NetNs) -> Iterator[tuple[ChangeOf, str, str, str]]:
    """Counters of trouble that went up, and a connection table that became nearly full, or is no longer."""
    for name, value in new.counters.items():
        if value > old.counters.get(name, 0):
            yield ChangeOf.COUNTER, name, str(old.counters.get(name, 0)), str(value)
    for device, counters in new.nic_counters.items():
        for name, value in counters.items():
            was = old.nic_counters.get(device, {}).get(name, 0)
            if value > was:
                yield ChangeOf.COUNTER, f"{device} {name}", str(was), str(value)
    full = [_nearly_full(netns) for netns in (old, new)]
    if new.host and full[0] != full[1]:
        yield ChangeOf.COUNTER, "conntrack entries", _entries(old), _entries(new)


def _nearly_full(netns: NetNs) -> bool:
    count, most = netns.conntrack_count, netns.conntrack_max
    return bool(count is not None and most and count >= NEARLY_FULL * most)


def _entries(netns: NetNs) -> str:
    return f"{netns.conntrack_count} of {netns.conntrack_max}"
