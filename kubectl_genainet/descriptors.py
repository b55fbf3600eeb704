"""File descriptors for connections to many nodes: the usual limit of 1,024 is reached at some 340 of them."""

from __future__ import annotations

from contextlib import suppress

PER_AGENT = 3  # the connection to the API server, and both ends of what carries it to the reader
_OTHERS = 100  # files, libraries, the watches of the cluster's objects


def make_room(agents: int) -> None:
    """Raises this process's soft limit, where it is too low for so many agents, as far as the hard limit allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = agents * PER_AGENT + _OTHERS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS has a limit of its own below the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
