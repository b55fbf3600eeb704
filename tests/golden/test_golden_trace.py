"""Bundles recorded from the lab, and what `trace` makes of them: the text at the widths of two terminals, and the same paths
where every node has a clock and a kernel of its own.

GENAINET_GOLDEN=text writes the expected texts anew, GENAINET_GOLDEN=bundles records the bundles (as root) and the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import pytest

from kubectl_genainet.bundle import Bundle, read_bundle
from kubectl_genainet.context.targets import resolve
from kubectl_genainet.model.events import Bye, Event, Hello, PacketSeen
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.trace.paths import PathCorrelator
from tests.golden.recordings import GOLDEN, LAB, MOST_BYTES, WIDTHS, bundle_of, compare, run

# bundle -> (incident or "", target, options of `lab up`)
RECORDINGS = {
    "healthy": ("", "svc/my-llama-svc", ()),
    "vxlan-nftables": ("", "svc/my-llama-svc", ("--overlay", "vxlan", "--proxy-mode", "nftables")),
    "policy-service-port": ("policy-service-port", "svc/my-llama-svc", ()),
    "no-endpoints": ("no-endpoints", "svc/my-llama-svc", ()),
    "stale-endpoint": ("stale-endpoint", "svc/my-llama-svc", ()),
    "mtu-blackhole": ("mtu-blackhole", "svc/my-llama-svc", ()),
    "no-local-endpoint": ("no-local-endpoint", "svc/chatbot-ui", ()),
}


@pytest.fixture(scope="module", autouse=True)
def recorded() -> None:
    """Records the bundles where that is asked for."""
    if GOLDEN != "bundles":
        return
    for name, (incident, target, options) in RECORDINGS.items():
        run("lab", "up", "--name", LAB, *options)
        try:
            if incident:
                run("lab", "incident", incident, "--name", LAB)
            for _ in range(5):  # until the incident was met
                arguments = ("--lab", LAB, "--timeout", "5s", "--record", str(bundle_of(name)))
                text = run("trace", target, *arguments, status=(0, 1))
                if incident not in ("stale-endpoint",) or "stale" in text or "no endpoint of it" in text:
                    break
        finally:
            run("lab", "down", "--name", LAB)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", RECORDINGS)
def test_recording_gives_the_expected_text(name: str, width: int, recorded: None) -> None:
    incident, target, _ = RECORDINGS[name]
    assert bundle_of(name).stat().st_size < MOST_BYTES
    text = run("trace", target, "--from", str(bundle_of(name)), status=(1,) if incident else (0,), width=width)
    compare(f"trace-{name}-{width}", text)
    assert all(len(line) <= width and line == line.rstrip() for line in text.splitlines())


def paths_of(bundle: Bundle, events: Iterable[Event], target: str) -> list[PacketPath]:
    correlator = PathCorrelator(bundle.snapshot, set(resolve(parse_target(target), bundle.snapshot, "default").servers))
    paths = [path for event in events for path in correlator.feed(event)]
    return paths + list(correlator.finish())


def on_kernels_of_their_own(events: Iterable[Event], skew: dict[str, int]) -> Iterator[Event]:
    """The records as they would be if each node had a kernel, a clock and sk_buff addresses of its own."""
    for event in events:
        changed = event
        time = getattr(event, "t_ns", 0)
        if time:
            changed = msgspec.structs.replace(event, t_ns=time + skew[getattr(event, "node", "")])
        if isinstance(changed, Hello):
            changed = msgspec.structs.replace(changed, boot_id=f"kernel of {changed.node}")
        if isinstance(changed, PacketSeen):
            changed = msgspec.structs.replace(changed, skb=changed.skb ^ hash(changed.node) & 0xFFFF)
        yield changed


def way(path: PacketPath) -> tuple[object, ...]:
    """All of a path but its times, and the attempts that came until it was told."""
    hops = tuple((h.node, h.pod, h.device, h.point, h.src, h.dst, h.tunnel) for h in path.hops)
    drop = (path.drop.reason, path.drop.hook, path.drop.rule) if path.drop else None
    return path.flow, path.backend, path.nat, hops, path.verdict, drop


@pytest.mark.parametrize("name", RECORDINGS)
def test_nodes_that_share_no_kernel_give_the_same_paths(name: str, recorded: None) -> None:
    bundle, target = read_bundle(bundle_of(name)), RECORDINGS[name][1]
    nodes = sorted({e.node for e in bundle.events if isinstance(e, Hello)})
    skew = {node: i * 7_654_321_000 for i, node in enumerate(nodes)}
    shared = paths_of(bundle, bundle.events, target)
    apart = paths_of(bundle, on_kernels_of_their_own(bundle.events, skew), target)
    assert sorted(map(repr, map(way, apart))) == sorted(map(repr, map(way, shared)))
    true = {path.flow: path for path in shared}
    aligned = 0
    for path in apart:
        own = skew[path.hops[0].node] if path.hops else 0
        for hop, known in zip(path.hops, true[path.flow].hops, strict=True):
            if hop.t_error_ns is None:
                assert hop.t_ns - skew[hop.node] == known.t_ns  # its own clock, and said so
            else:
                assert abs(hop.t_ns - own - known.t_ns) <= hop.t_error_ns
                aligned += hop.t_error_ns > 0
    assert aligned or not any(path.drop is None and len({h.node for h in path.hops}) > 1 for path in shared)


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording_accounts_for_every_event(name: str, recorded: None) -> None:
    bundle = read_bundle(bundle_of(name))
    last = [e for e in bundle.events if isinstance(e, Bye)]
    assert len(last) == 3 and all(b.emitted == b.sent + b.lost and b.lost == 0 for b in last)
    kinds = ("PacketSeen", "PacketDropped", "IcmpError", "TcpRetransmit")
    assert sum(b.sent for b in last) == sum(type(e).__name__ in kinds for e in bundle.events)
