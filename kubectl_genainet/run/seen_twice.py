"""Rules that differ from the API are read again before they are said to: one read may fall into a change.

kube-proxy follows the API by a second or so, and iptables-restore commits its tables one after another: between both, a Service
that has just got its first endpoint has neither the REJECT of the one table nor the rules of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import sleep
from typing import TypeVar

from kubectl_genainet.model.finding import Finding

T = TypeVar("T")
AGAIN_S = 3.0  # between two reads
MOST = 2  # further reads


def seen_twice(now: T, again: Callable[[], T], differs: Callable[[T], Iterable[Finding]]) -> T:
    """`now` where nothing differs; else the first of further reads that shows nothing but what the one before had shown too.

    Where things go on changing it is the last read.
    """
    before = _keys(differs(now))
    for _ in range(MOST):
        if not before:
            break
        sleep(AGAIN_S)
        now = again()
        current = _keys(differs(now))
        if current <= before:
            break
        before = current
    return now


def _keys(findings: Iterable[Finding]) -> frozenset[object]:
    """What is said of which object on which node, without what each read measures anew."""
    return frozenset((f.check, f.object, tuple(sorted({e.node for e in f.evidence}))) for f in findings)
