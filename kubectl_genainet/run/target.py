"""The one holder of what a run looks at, while the cluster's objects change below it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot

T = TypeVar("T")


class HeldTarget(Generic[T]):
    """What `resolve` makes of a target, kept up to date.

    A target that does not exist at the start is the user's mistake: the constructor raises InputError. One that is
    deleted later, or has no address for a while, is not: `current` keeps the last addresses, so that what is still sent
    to them is seen, and `warn` is told once when it goes and once when it is back.
    """

    def __init__(
        self, name: str, resolve: Callable[[ClusterSnapshot], T], snapshot: ClusterSnapshot, warn: Callable[[str], None]
    ) -> None:
        self.name, self._resolve, self._warn = name, resolve, warn
        self.current = resolve(snapshot)
        self._missing = False

    def update(self, snapshot: ClusterSnapshot) -> None:
        """The cluster's objects have changed."""
        try:
            self.current = self._resolve(snapshot)
        except InputError as error:
            if not self._missing:
                self._warn(f"{self.name} can't be found any more; its last addresses are followed: {error.message}")
            self._missing = True
            return
        if self._missing:
            self._warn(f"{self.name} is back")
        self._missing = False
