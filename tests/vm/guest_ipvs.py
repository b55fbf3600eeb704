"""Runs inside the machine: virtual servers made by ipvsadm, our reading of them, real packets. Prints one JSON line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from kubectl_genainet.agent.node import ipvs
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, evaluate, parse_ruleset
from tests.proxy_traffic import Namespace, Traffic, inside

# All that a virtual server can be. ipvsadm's own words, but in no order.
SERVERS = """\
-A -t 10.96.0.10:80 -s rr
-a -t 10.96.0.10:80 -r 10.244.1.6:8080 -m -w 1
-a -t 10.96.0.10:80 -r 10.244.1.5:8080 -m -w 1
-a -t 10.96.0.10:80 -r 10.244.1.7:8080 -m -w 0
-A -u 10.96.0.10:53 -s wrr
-a -u 10.96.0.10:53 -r 10.244.1.5:5353 -m -w 1
-a -u 10.96.0.10:53 -r 10.244.1.6:5353 -m -w 3
-A -t 10.96.0.9:443 -s rr -p 10800
-a -t 10.96.0.9:443 -r 10.244.1.5:8080 -m -w 1
-A -t 10.96.0.11:443 -s rr -p 600 -M 255.255.255.0
-A -t 10.96.0.12:80 -s rr
-A -t 10.96.0.13:80 -s sh -b sh-fallback,sh-port
-a -t 10.96.0.13:80 -r 10.244.1.5:8080 -g -w 1
-a -t 10.96.0.13:80 -r 10.244.1.6:8080 -i -w 2
-a -t 10.96.0.13:80 -r 10.244.1.7:8080 -i -w 2 --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.96.0.13:80 -r 10.244.1.8:8080 -i -w 2 --tun-type gre
-A -u 10.96.0.14:53 -s rr -o
-A --sctp-service 10.96.0.15:3868 -s rr
-a --sctp-service 10.96.0.15:3868 -r 10.244.1.5:3868 -m -w 1
-A -t [fd00:96::a]:80 -s rr
-a -t [fd00:96::a]:80 -r [fd44::6]:8080 -m -w 1
-a -t [fd00:96::a]:80 -r [fd44::5]:8080 -m -w 1
-A -t [fd00:96::b]:80 -s rr -p 300 -M 64
-A -f 7 -s rr
-a -f 7 -r 10.244.1.5:0 -g -w 1
-A -f 8 -6 -s rr
"""
ENDPOINTS = [
    *((ip, 8080, "TCP") for ip in ("10.244.1.5", "10.244.1.6", "10.244.1.7", "fd44::5", "fd44::6")),
    *((ip, 5353, "UDP") for ip in ("10.244.1.5", "10.244.1.6")),
]
FLOWS = [
    ("192.0.2.10", "10.96.0.10", 80, "TCP"),
    ("192.0.2.10", "10.96.0.10", 53, "UDP"),
    ("192.0.2.11", "10.96.0.9", 443, "TCP"),
    ("2001:db8::10", "fd00:96::a", 80, "TCP"),
    ("192.0.2.10", "10.96.0.12", 80, "TCP"),
]
TIMES = 8  # connections a flow
SUMMED_EVERY_S = 2.0  # IPVS adds up its CPUs' counters by a timer: until then the statistics lack what came last


def record(into: list[tuple[str, str]]) -> None:
    """Keeps the kernel's messages as they came, for tests/unit/agent/test_agent_ipvs.py."""
    decode = ipvs._attributes

    def keep(message: Any, name: str) -> ipvs.Attributes:
        into.append((name, bytes(message.data[message.offset : message.offset + message.length]).hex()))
        return decode(message, name)

    ipvs._attributes = keep


def main() -> None:
    messages: list[tuple[str, str]] = []
    record(messages)
    node = Namespace("node")
    path = f"/run/netns/{node.name}"
    empty = ipvs.read_ipvs(path)
    with Traffic(node.name, ENDPOINTS) as traffic:
        for ip in ("10.96.0.9", "10.96.0.10", "10.96.0.12", "fd00:96::a"):
            inside(node.name, "ip", "addr", "add", ip, "dev", "lo")
        inside(node.name, "ipvsadm", "-R", stdin=SERVERS)
        text, error = ipvs.read_ipvs(path)
        ruleset = parse_ruleset(
            [RulesetDump(node="node", t_ns=0, source="ipvs", text=text)], node_ips=traffic.node_ips()
        )
        flows = [
            {"from": "client", "src": src, "dst": dst, "dport": port, "protocol": protocol}
            for src, dst, port, protocol in FLOWS
            for _ in range(TIMES)
        ]
        came = traffic.send(flows)
        said = [
            evaluate(ruleset, Packet(src=src, dst=dst, dport=port, protocol=Protocol(protocol)))
            for src, dst, port, protocol in FLOWS
        ]
        time.sleep(2 * SUMMED_EVERY_S)
        report = {
            "empty": empty,
            "ours": text,
            "messages": messages,
            "error": error,
            "ipvsadm": inside(node.name, "ipvsadm", "-Sn"),
            "stats": inside(node.name, "ipvsadm", "-Ln", "--stats", "--exact"),
            "flows": [
                {
                    "flow": flow,
                    "verdict": evaluation.verdict.value,
                    "backends": {b.address: b.probability for b in evaluation.backends},
                    "masquerade": evaluation.masquerade,
                    "came": came[i * TIMES : (i + 1) * TIMES],
                }
                for i, (flow, evaluation) in enumerate(zip(FLOWS, said, strict=True))
            ],
        }
    print("RESULT " + json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
