"""docs/security.md's bounds are the product's: a number that is changed in one place is changed in both."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from kubectl_genainet import bundle, completion, stream, wire
from kubectl_genainet.agent.always import metrics
from kubectl_genainet.agent.exact import rules as exact
from kubectl_genainet.agent.fabric import connections
from kubectl_genainet.agent.node import inventory, namespace
from kubectl_genainet.agent.objects import server as objects_server
from kubectl_genainet.agent.serve import history, limits, server
from kubectl_genainet.commands.options import when
from kubectl_genainet.history import blocks, ranges
from kubectl_genainet.kube import client, credentials, nesting, snapshot, yaml_text
from kubectl_genainet.kube.kustomize import build, patterns
from kubectl_genainet.policy.dialects.cilium import options
from kubectl_genainet.policy.matching import expressions
from kubectl_genainet.proxy.evaluator import walk
from kubectl_genainet.render import jsonpath
from kubectl_genainet.render.gotemplate import evaluate as gotemplate
from kubectl_genainet.run import timeline
from kubectl_genainet.run.fleet import status
from kubectl_genainet.run.sources import engines

ROOT = Path(__file__).parents[3]
PROBE = (ROOT / "probes/dns.bpf.c").read_text()
WANTED = wire.HistoryRequest(since_ns=0, until_ns=1)
DNS_ENTRIES = int(re.findall(r"^#define PENDING (\d+)", PROBE, re.MULTILINE)[0])


def mb(size: int) -> str:
    return f"{size >> 20} MB"


BOUNDS = {
    "sessions of an agent": f"{limits.MAX_SESSIONS}, and what its memory limit holds",
    "`--exact` in a network namespace": f"one, of {exact.MAX_FILTERS:,} addresses, whoever's agent it is",
    "connections to an agent": f"{server.MAX_CONNECTIONS}; {server.MAX_KNOWN} with a token",
    "a request's head, and its body": f"{server.HEAD_S:g} s each",
    "a request's body": f"{mb(limits.MAX_BODY)}, {server.MAX_BODIES} at a time, after the token",
    "filters of a session": f"{limits.MAX_FILTERS:,}, and {limits.MAX_FILTER_KEYS:,} entries of the kernel's table",
    "a report of a node": f"{inventory.MAX_NAMESPACES:,} namespaces, {namespace.MAX_ADDRESSES:,} addresses of one, "
    f"{inventory.MAX_PARTS:,} parts, {inventory.REPORT_S:g} s",
    "addresses whose TCP connections are asked for (`fabric`)": f"{limits.MAX_ADDRESSES}; of each namespace the "
    f"{connections.MAX_CONNECTIONS} connections that carried most",
    "open DNS exchanges of a node, events of DNS": f"{DNS_ENTRIES:,}; {limits.Budget().events_per_second:,} a second and CPU; "
    "each client as much as is left for the others",
    "an agent's answer": f"{stream.ANSWER_S:g} s (rules {stream.RULES_S:g} s), {mb(stream.MAX_ANSWER)}; of a trace "
    f"{stream.HELLO_S:g} s to say who it is",
    "what all nodes recorded of one time": f"{mb(WANTED.max_bytes)} of a node, {mb(ranges.MAX_BYTES)} of all, "
    f"{ranges.MAX_PLAIN >> 30} GB unpacked; an answer {mb(ranges._FREE)} and a hundred times its size",
    "an answer of ClickHouse": f"{engines.ANSWER_S:g} s",
    "addresses of a question about a recording": f"{wire.MAX_HISTORY_ADDRESSES:,}",
    "a time in a recording": f"the years 1970 to {datetime.fromtimestamp(blocks._FAR / 1e9, UTC).year}",
    "records of agents that wait to be taken": f"{stream.WAITING_RECORDS:,}, of {mb(stream.WAITING_BYTES)}",
    "an answer of the API server; an object of a watch": f"{client.WHOLE_ANSWER_S:g} s for all of it, "
    f"{mb(client.MAX_ANSWER)} unpacked; {mb(client.MAX_LINE)}",
    "all pages of a list of the API server's": f"{snapshot.LIST_S:g} s, {snapshot.MAX_LIST >> 30} GB",
    "a credential plugin": f"{credentials.PLUGIN_S:g} s, at a terminal {credentials.LOGIN_S:g} s; {mb(credentials.MOST_OUTPUT)}",
    "completion": f"{completion.DEADLINE_S:g} s",
    "all that `version` asks the API server, all that `status` does": f"{status.VERSION_S:g} s; {status.STATUS_S:g} s",
    "a packet's walk through rules": f"{walk.MAX_STEPS:,} rules, {walk.MAX_WAYS:,} ways, jumps {walk.MAX_DEPTH} deep",
    "a record of a stream or a bundle": mb(wire.MAX_RECORD),
    "a bundle unpacked": f"{mb(bundle._PLAIN)} and a hundred times its size",
    "YAML and JSON": f"{yaml_text.MAX_DEPTH} deep; aliases for {yaml_text.MAX_ALIASED:,} values; numbers of 64 bits",
    "an object of the API server": f"{nesting.MAX_DEPTH} deep",
    "a timeline": f"{timeline.LONGEST_NS // (24 * 3600 * 10**9)} days",
    "a kustomization": f"files below its folder, of {mb(build._MOST_BYTES)}; {build._MOST_BUILT:,} built; "
    f"{build._MOST_WORK:,} patches times objects; patterns of {patterns.MAX_PATTERN} characters",
    "a JSONPath template": f"{jsonpath.MAX_TEMPLATE:,} characters; no regular expressions",
    "connections to the recorder of objects": f"{objects_server.MAX_CONNECTIONS}; {objects_server.MAX_KNOWN} with a token",
    "a selector of Calico's": f"{expressions.MAX_DEPTH} deep",
    "an expression of Cilium's option `labels`": f"{options._MOST_PATTERN} characters, {options._MOST_REPETITIONS} repetitions "
    f"and no group's, {options._MOST_ALTERNATIVES} alternatives",
}


def test_the_pages_bounds_are_those_of_the_product() -> None:
    table = (ROOT / "docs/security.md").read_text().partition("| of what | bound | beyond it |\n|---|---|---|\n")[2]
    rows = (line.strip("| ").split(" | ") for line in table.partition("\n\n")[0].splitlines())
    assert {what: bound for what, bound, _ in rows} == BOUNDS


def test_bounds_that_the_page_gives_once_hold_in_both_places() -> None:
    assert server.HEAD_S == server.REQUEST_S
    assert bundle._RATIO == ranges._RATIO == 100
    assert history.MAX_RANGE_NS == timeline.LONGEST_NS == when.LONGEST_S * 1e9
    assert jsonpath.MAX_TEMPLATE == gotemplate.MAX_TEMPLATE
    assert f"at most {metrics.MAX_LABEL_SETS} label sets" in (ROOT / "docs/metrics.md").read_text()
    table = re.search(r"BPF_HASH\(filter, [^,]+, [^,]+, (\d+)\)", (ROOT / "probes/include/genainet.h").read_text())
    assert table is not None and int(table[1]) == limits.MAX_FILTER_KEYS
