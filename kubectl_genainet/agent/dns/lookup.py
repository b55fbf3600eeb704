"""Looks a name up as a pod's resolver would: search domains, ndots and name servers of its resolv.conf(5), A or AAAA.

Called inside the pod's network namespace. Source of the order: resolver(5), and glibc's res_search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from kubectl_genainet.model.dns import ResolvConf, parse_resolv_conf
from kubectl_genainet.model.events import NameLookup

TIMEOUT_S = 10.0  # of all queries together
_TRY_S = 5.0  # of one query: what a resolver waits (resolv.conf(5), timeout)
_PORT = 53
_SERVERS = 3  # that the C library reads (resolv.conf(5), MAXNS)


def candidates(name: str, conf: ResolvConf) -> Iterator[str]:
    """The names that are asked for, in order."""
    if name.endswith("."):
        yield name
        return
    absolute = f"{name}."
    if name.count(".") >= conf.ndots:
        yield absolute
    yield from (f"{name}.{domain}." for domain in conf.search)
    if name.count(".") < conf.ndots:
        yield absolute


def look_up(name: str, resolv_conf: str, *, ipv6: bool, port: int = _PORT) -> NameLookup:
    """What the name resolves to; never raises."""
    conf, began = parse_resolv_conf(resolv_conf), time.monotonic()
    servers = tuple(address.partition("%")[0] for address in conf.nameservers[:_SERVERS])
    if not servers:
        return NameLookup(name=name, outcome="no name server in the pod's resolv.conf")
    asked, queries, server = name, 0, servers[0]
    outcome = "timeout"
    for asked in candidates(name, conf):
        outcome, addresses, server, tried = _ask(asked, servers, began, ipv6=ipv6, port=port)
        queries += tried
        if addresses or outcome not in ("NXDOMAIN", "no address"):
            break
    took = int((time.monotonic() - began) * 1e9)
    return NameLookup(name, outcome, asked, server, addresses, queries, took)


def _ask(
    asked: str, servers: tuple[str, ...], began: float, *, ipv6: bool, port: int
) -> tuple[str, tuple[str, ...], str, int]:
    """(outcome, addresses, the server, queries) of one name: the servers in turn until one answers."""
    kind, outcome, tried, server = "AAAA" if ipv6 else "A", "timeout", 0, servers[0]
    for server in servers:
        remaining_s = TIMEOUT_S - (time.monotonic() - began)
        if remaining_s <= 0:
            break
        tried += 1
        try:
            answer = dns.query.udp(
                dns.message.make_query(asked, kind), server, timeout=min(_TRY_S, remaining_s), port=port
            )
        except dns.exception.Timeout:
            outcome = "timeout"
            continue
        except (OSError, dns.exception.DNSException) as error:
            outcome = getattr(error, "strerror", None) or type(error).__name__
            continue
        rcode = dns.rcode.to_text(answer.rcode())
        addresses = tuple(
            str(item) for rrset in answer.answer if rrset.rdtype == dns.rdatatype.from_text(kind) for item in rrset
        )
        return ("answered" if addresses else "no address" if rcode == "NOERROR" else rcode), addresses, server, tried
    return outcome, (), server, tried
