"""Who may ask the agent: whoever can read the capability, a Secret in the agents' namespace (docs/adr/0040)."""

from __future__ import annotations

import hmac
from pathlib import Path

MIN_LENGTH = 32
_MAX_LENGTH = 4096


class Capability:
    """Compares the bearer token with the content of a file, read anew each time: the kubelet updates it in place.

    A file that is missing, unreadable or too short to be a secret lets nobody in.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    async def refuse(self, authorization: str, path: str) -> str:
        """The reason for a refusal, "" for a caller that has the capability; never tells how near a guess was."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_LENGTH:
            return "this agent wants the capability of the Secret genainet-trace as a bearer token"
        try:
            wanted = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return f"the agent has no capability to compare with: {self._path} can't be read"
        if len(wanted) < MIN_LENGTH:
            return f"the agent has no capability to compare with: {self._path} holds fewer than {MIN_LENGTH} characters"
        if not hmac.compare_digest(token.strip().encode(), wanted.encode()):
            return "the bearer token is not the agents' capability"
        return ""
