"""What a fate takes for absent may be among the records that were lost: then the fate is not known."""

from __future__ import annotations

from collections.abc import Collection

from kubectl_genainet.model.results.path import ConnectionOutcome
from kubectl_genainet.trace.fate import Fate
from kubectl_genainet.trace.joining.connection import Connection, PacketDirection


def missed_by(connection: Connection, fate: Fate, lost: Collection[str]) -> str:
    """What may have been among the records that the nodes `lost`, and would make another fate of it; "" for nothing."""
    if not lost:
        return ""
    match fate.outcome:
        case ConnectionOutcome.UNANSWERED:
            return "an answer may have been among them"
        case ConnectionOutcome.DROPPED if fate.drop is None or _tried_again(connection, fate):
            return "an answer may have been among them"
        case ConnectionOutcome.RESET if all(seen.node in lost for seen, _ in connection.resets):
            return "the FIN of an orderly end may have been among them"
        case ConnectionOutcome.REFUSED if _opened(connection):
            return "the connection may have been open before"
        case _:
            return ""


def _tried_again(connection: Connection, fate: Fate) -> bool:
    """Whether a first packet was sent that was not seen to die."""
    assert fate.drop is not None
    died = sum(drop.first_packet for drop in connection.drops)
    return fate.drop.first_packet and died < sum(bool(attempt) for attempt in connection.attempts)


def _opened(connection: Connection) -> bool:
    """Whether a reset is none that answers a SYN: such a one has no sequence number of its own (RFC 9293, 3.10.7.1)."""
    answers = [seen.tcp for seen, way in connection.resets if way is PacketDirection.REPLY and seen.tcp is not None]
    return bool(answers) and not connection.icmp and all(tcp.seq for tcp in answers)
