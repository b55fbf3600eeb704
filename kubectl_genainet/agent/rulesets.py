"""Reads the packet rules of the node's host namespace with the system's own tools, without a shell."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

from kubectl_genainet.model.node import RulesetDump

TIMEOUT_S = 20
MAX_BYTES = 60 << 20

# source -> command; the variants of iptables may both hold rules on one node
_COMMANDS = {
    "iptables-nft": ("iptables-nft-save", "-c"),
    "iptables-legacy": ("iptables-legacy-save", "-c"),
    "ip6tables-nft": ("ip6tables-nft-save", "-c"),
    "ip6tables-legacy": ("ip6tables-legacy-save", "-c"),
    "nft": ("nft", "-j", "list", "ruleset"),
    "ipvs": ("ipvsadm", "-Sn"),
    "ipset": ("ipset", "list"),
    "conntrack-stats": ("conntrack", "-S"),
}
_OPTIONAL = {"ipvs", "ipset", "conntrack-stats", "iptables-legacy", "ip6tables-legacy"}


def read_rulesets(node: str, host_netns: str) -> Iterator[RulesetDump]:
    """Every ruleset that this node has, one dump a source. A source that fails says why; empty ones are left out."""
    for source, command in _COMMANDS.items():
        now = time.monotonic_ns()
        if shutil.which(command[0]) is None:
            if source not in _OPTIONAL:
                yield RulesetDump(
                    node=node, t_ns=now, source=source, text="", error=f"{command[0]} is not in the agent's image"
                )
            continue
        text, error = _run(("nsenter", f"--net={host_netns}", *command))
        if source in _OPTIONAL and error:
            continue
        if _has_rules(source, text) or error:
            yield RulesetDump(node=node, t_ns=now, source=source, text=text, error=error)


def _has_rules(source: str, text: str) -> bool:
    if "tables" in source:
        return "\n-A " in text or "] -A " in text
    return len(text.strip()) > len('{"nftables": []}') if source == "nft" else bool(text.strip())


def _run(command: tuple[str, ...]) -> tuple[str, str]:
    """(standard output, error) of a command that only reads."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if done.returncode:
        return "", done.stderr.decode(errors="replace").strip()[:500] or f"{command[2]} ended with {done.returncode}"
    if len(done.stdout) > MAX_BYTES:
        return "", f"the ruleset has {len(done.stdout)} bytes, more than {MAX_BYTES}"
    return done.stdout.decode(errors="replace"), ""
