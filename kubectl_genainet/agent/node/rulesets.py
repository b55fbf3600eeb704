"""Reads the packet rules of a namespace: with the system's own tools, without a shell; IPVS by netlink."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator

from kubectl_genainet.agent.node.cpu_time import charge_command
from kubectl_genainet.agent.node.ipvs import read_ipvs
from kubectl_genainet.model.node import RulesetDump

TIMEOUT_S = 20
MAX_BYTES = 60 << 20
MAX_CONNTRACK_BYTES = 24 << 20  # about 100,000 connections; a table may hold millions

# source -> command; the variants of iptables may both hold rules on one node
_COMMANDS = {
    "iptables-nft": ("iptables-nft-save", "-c"),
    "iptables-legacy": ("iptables-legacy-save", "-c"),
    "ip6tables-nft": ("ip6tables-nft-save", "-c"),
    "ip6tables-legacy": ("ip6tables-legacy-save", "-c"),
    "nft": ("nft", "-j", "list", "ruleset"),
    "ipset": ("ipset", "list"),
    "conntrack-stats": ("conntrack", "-S"),
}
# nft 1.0.6 prints other memory for the flags of a table (dormant, owner), and cuts its JSON there where that is no UTF-8.
_TABLE_WITH_FLAGS = re.compile(r'\{"table": \{[^{}]*"flags"')
_NODE_ONLY = {"ipset", "conntrack-stats"}
_OPTIONAL = {"ipset", "conntrack-stats", "iptables-legacy", "ip6tables-legacy"}


def read_rulesets(
    node: str, netns: str, *, conntrack: bool = False, only_rules: bool = False, with_empty: bool = False
) -> Iterator[RulesetDump]:
    """Every ruleset of the namespace, one dump a source. A source that fails says why. Those without rules are left out, or,
    `with_empty`, have no text: they may have had rules when they were read before.

    With `conntrack`, the connections whose destination was translated too ("conntrack"), up to MAX_CONNTRACK_BYTES.
    With `only_rules`, what a pod may have: no sets, no statistics, no virtual servers.
    """
    for source, command in _COMMANDS.items():
        if only_rules and source in _NODE_ONLY:
            continue
        now = time.monotonic_ns()
        if shutil.which(command[0]) is None:
            if source not in _OPTIONAL:
                yield RulesetDump(
                    node=node, t_ns=now, source=source, text="", error=f"{command[0]} is not in the agent's image"
                )
            continue
        text, error = _run(("nsenter", f"--net={netns}", *command))
        if source == "nft" and text and not _is_sound_json(text):
            text, error = _run(("nsenter", f"--net={netns}", "nft", "list", "ruleset"))
        if source in _OPTIONAL and error:
            continue
        has_rules = _has_rules(source, text)
        if has_rules or error or with_empty:
            yield RulesetDump(node=node, t_ns=now, source=source, text=text if has_rules else "", error=error)
    if only_rules:
        return
    now = time.monotonic_ns()
    text, error = read_ipvs(netns)
    if text or error or with_empty:
        yield RulesetDump(node=node, t_ns=now, source="ipvs", text=text, error=error)
    if conntrack:
        now = time.monotonic_ns()
        text, error = _translated_connections(netns)
        yield RulesetDump(node=node, t_ns=now, source="conntrack", text=text, error=error)


def _translated_connections(host_netns: str) -> tuple[str, str]:
    """(text, error) of `conntrack -L` for both families. More than the bound is an error: a part would count wrong."""
    lists = []
    for family in ("ipv4", "ipv6"):
        command = ("nsenter", f"--net={host_netns}", "conntrack", "-L", "-f", family, "--dst-nat")
        text, error = _run(command, most=MAX_CONNTRACK_BYTES, what="list of connections")
        if error:
            return "", error
        lists.append(text)
    return "".join(lists), ""


def _has_rules(source: str, text: str) -> bool:
    if "tables" in source:  # a chain's policy is one as well
        return "\n-A " in text or "] -A " in text or " DROP [" in text
    return len(text.strip()) > len('{"nftables": []}') if source == "nft" else bool(text.strip())


def _is_sound_json(text: str) -> bool:
    """Whether the JSON of nft is whole and has nothing that its text alone tells rightly."""
    return text.rstrip().endswith("]}") and _TABLE_WITH_FLAGS.search(text) is None


def _run(command: tuple[str, ...], *, most: int = MAX_BYTES, what: str = "ruleset") -> tuple[str, str]:
    """(standard output, error) of a command that only reads. Ends it when it says more than `most` bytes."""
    try:
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL) as process,
        ):
            timer = threading.Timer(TIMEOUT_S, process.kill)
            timer.start()
            try:
                assert process.stdout is not None
                output = process.stdout.read(most + 1)
                if len(output) > most:
                    process.kill()
                charge_command(process.pid)
                if len(output) > most:
                    return "", f"the {what} has more than {most} bytes"
                process.wait()
            finally:
                late = not timer.is_alive()
                timer.cancel()
            errors.seek(0)
            complaint = errors.read(500).decode(errors="replace").strip()
    except OSError as error:
        return "", str(error)
    if late:
        return "", f"{command[2]} took more than {TIMEOUT_S} s"
    if process.returncode:
        return "", complaint or f"{command[2]} ended with {process.returncode}"
    return output.decode(errors="replace"), ""
