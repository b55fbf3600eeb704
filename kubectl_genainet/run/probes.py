"""Which command's probes a record comes from, where the probes of several commands run in one session."""

from __future__ import annotations

from kubectl_genainet.model.events import (
    DnsConnection,
    DnsDropped,
    DnsMessageSeen,
    DnsTransaction,
    DropSample,
    Event,
    IcmpError,
    IcmpSample,
    LostEvents,
    PacketDropped,
    PacketSeen,
)

PROBES = {"trace": ("packet", "connections"), "drops": ("drops",), "dns": ("dns",)}
# Other records have one reader only, or are for all.
_READER: dict[type[object], str] = {
    PacketSeen: "trace",
    PacketDropped: "trace",
    IcmpError: "trace",
    DropSample: "drops",
    IcmpSample: "drops",
    DnsTransaction: "dns",
    DnsMessageSeen: "dns",
    DnsDropped: "dns",
    DnsConnection: "dns",
}
_COMMANDS = {probe: command for command, probes in PROBES.items() for probe in probes}


def concerns(command: str, event: Event) -> bool:
    """Whether a record of a session with all probes is for the command."""
    reader = _READER.get(type(event))
    if reader is None and isinstance(event, LostEvents):
        reader = _COMMANDS.get(event.probe)
    return reader is None or reader == command
