"""A document as one HTML page without scripts and outside references: for a ticket, print, a phone, light and dark."""

from __future__ import annotations

from kubectl_genainet import __version__
from kubectl_genainet.render.document.charts import charts, failures
from kubectl_genainet.render.document.model import Document
from kubectl_genainet.render.page import asset, environment, source_hash


def html(document: Document, made: str = "", past: str = "") -> str:
    """The page; `made` is the time of the end of the watch, RFC 3339, `past` HTML about the time that was watched. Styles are
    inline, named by hash in its policy."""
    style = asset("report.css")
    cards = [(card, failures(card.failed_at, document.seconds) if card.failed_at else None) for card in document.cards]
    return (
        environment()
        .get_template("document.html.j2")
        .render(
            document=document,
            cards=cards,
            past=past,
            charts=list(charts(document.timeline)) if document.timeline is not None else [],
            made=made,
            version=__version__,
            style=style,
            style_hash=source_hash(style),
        )
    )
