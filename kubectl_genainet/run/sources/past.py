"""A source in a time that has passed."""

from __future__ import annotations

from kubectl_genainet.errors import InputError
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.history import HistorySource, TimeRange


def past_of(source: Source, when: TimeRange, warn: Warn) -> Source:
    """What was recorded of the source in that time. Raises InputError for a file, which has its own time."""
    if isinstance(source, HistorySource):
        return source.within(when)
    if not source.live:
        raise InputError(
            "a time that has passed is asked of a cluster, a lab or a table: what is in a file has its own"
        )
    return HistorySource(source, when, warn=warn)
