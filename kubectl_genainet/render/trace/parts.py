"""What the renderers of a path share: the ends, the verdict's style, how a statement is known."""

from __future__ import annotations

from rich.text import Text

from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import Party, Silence, Stream, Verdict, WaitedFor
from kubectl_genainet.render.text import CERTAINTY_STYLE, duration, printable

VERDICT_STYLE = {
    Verdict.FORWARDED: "green",
    Verdict.DROPPED: "bold red",
    Verdict.REJECTED: "bold red",
    Verdict.UNANSWERED: "bold red",
    Verdict.RESET: "bold red",
    Verdict.UNKNOWN: "yellow",
}


def party_text(party: Party | None) -> str:
    """ "pod (node) address", as much of it as is known."""
    if party is None:
        return "no backend"
    address = address_text(party.ip, party.port)
    name = party.pod or (f"node {party.node}" if party.node else "")
    where = f" on {party.node}" if party.pod and party.node else ""
    return printable(f"{name}{where}  {address}" if name else address)


def silence_text(silence: Silence) -> str:
    """ "longest silence 8.00 s (waiting for the server)", as much of it as is known."""
    whose = silence.waited_for
    waited = "" if whose is WaitedFor.UNKNOWN else f" (waiting for the {whose.value})"
    return f"longest silence {duration(silence.length_ns)}{waited}"


def ending_text(stream: Stream) -> str:
    """How the connection ended, as far as it has."""
    if stream.ended_by:
        return f"ended by the {stream.ended_by} ({stream.ended})"
    return "still open, idle" if stream.ended == "idle" else "still open"


def certainty(of: Certainty) -> Text:
    return Text(f"[{of.value}]", style=CERTAINTY_STYLE[of])


def line(*parts: str | Text) -> Text:
    """Parts one after the other; what is not styled text is made printable."""
    joined = Text(overflow="fold")
    for part in parts:
        joined.append_text(part) if isinstance(part, Text) else joined.append(printable(part))
    return joined
