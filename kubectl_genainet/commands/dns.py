"""`dns`: who waits for name lookup, for which names, at which hop."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from kubectl_genainet.commands.options import budget_option, output_option, source_options, watch_options
from kubectl_genainet.commands.options.report import report_option, reported
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.dns.views import VIEWS
from kubectl_genainet.render.document.reporting import DnsReporting
from kubectl_genainet.render.live import make_view
from kubectl_genainet.render.screen.run import on_screen
from kubectl_genainet.run.dns import DnsOptions, dns
from kubectl_genainet.run.sources.base import Source


@click.command("dns")
@click.argument("target", required=False)
@click.option("--server", is_flag=True, help="TARGET is a DNS server: show who asks it, and what it asks upstream.")
@click.option(
    "--redact", is_flag=True, help="Hash the names asked for, all but their public suffix; also with --record."
)
@budget_option("reporting queries", "the kernel counts the rest as lost; clients share what there is")
@watch_options("30s")
@report_option
@output_option(*VIEWS, "yaml", "name", templates=True)
@source_options(past=True)
def command(source: Source, target: str | None, timeout: float, output: str, **options: Any) -> ExitStatus:
    """Show who waits for DNS, for which names, at which hop.

    TARGET are the clients: svc/NAME, pod/NAME, deploy/NAME or IP (pod/NAMESPACE/NAME for another namespace); by default all of
    the cluster. Queries over UDP and TCP are followed from the client's pod through kube-proxy's NAT to the server and on to
    its upstream.

    \b
    Examples:
      kubectl genainet dns
      kubectl genainet dns deploy/rag-app -n prod --timeout 1m
      kubectl genainet dns svc/kube-dns -n kube-system --server
      kubectl genainet dns -o json | jq 'select(.outcome == "timeout") | .last_seen'
      kubectl genainet dns -n prod --report dns.html
      kubectl genainet dns deploy/rag-app --at 03:12 --for 15m
      kubectl genainet dns --redact --record dns.gnb
      kubectl genainet dns --from dns.gnb -o wide
      kubectl genainet dns --lab

    Exit status: 0 all was answered in time, 1 a time-out, a failing or slow server, or a habit that costs queries was
    found, 2 the command failed, 124 no query was seen in time.
    """
    chosen = DnsOptions(
        options["server"], options["redact"], timeout, options["node"], options["record"], options["budget"]
    )
    shown = reported(partial(make_view, VIEWS, output, by_server=chosen.as_server), DnsReporting, options["report"])
    about = parse_target(target) if target else None
    return on_screen(lambda make: dns(source, about, chosen, make), shown, wanted=source.live and output == "table")
