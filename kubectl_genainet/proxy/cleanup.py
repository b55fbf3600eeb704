"""Commands that take away what kube-proxy wrote in one mode, by the node's own tools.

`kube-proxy --cleanup` takes away the rules of every mode, those in use too, and the kube-proxy that runs does not write them
again before its next full sync: every Service of the node is down until then.
"""

from __future__ import annotations

from collections.abc import Iterable

_IPVS = ("ipvsadm --clear", "ip link delete kube-ipvs0")


def cleanup(dumps: Iterable[str], where: str = "") -> str:
    """What removes kube-proxy's rules from the dumps that `proxy_modes` names, and nobody else's; a line for each."""
    comment = f"   # {where}" if where else ""
    return "\n".join(f"{line}{comment}" for dump in dumps for line in _lines(dump))


def _lines(dump: str) -> tuple[str, ...]:
    if dump == "ipvs":
        return _IPVS
    if dump.startswith("nft "):
        return (f"nft delete table {dump.removeprefix('nft ')} kube-proxy",)
    return (f"{dump}-save | grep -v KUBE- | {dump}-restore",)
