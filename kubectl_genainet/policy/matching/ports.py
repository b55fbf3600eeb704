"""Ports and protocols as the API server validates them."""

from __future__ import annotations

import re

from kubectl_genainet.policy.rules import PROTOCOLS
from kubectl_genainet.policy.where import Where


def check_protocol(protocol: str, where: Where) -> None:
    if protocol not in PROTOCOLS:
        raise where.error(f"{protocol!r} is none of {', '.join(PROTOCOLS)}")


def check_port(port: int, where: Where) -> None:
    if not 1 <= port <= 65535:
        raise where.error(f"port {port} is not between 1 and 65535")


def check_port_name(name: str, where: Where) -> None:
    """IANA service name (RFC 6335): at most 15 of a-z, 0-9 and -, at least one letter, no "--", no - at the ends."""
    fits = re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?", name) and re.search("[a-z]", name) and "--" not in name
    if name.isdigit():
        raise where.error(f"the port number {name!r} is quoted, which makes it a name", f"Drop the quotes: {name}.")
    if not fits:
        raise where.error(f"{name!r} is not a port name")
