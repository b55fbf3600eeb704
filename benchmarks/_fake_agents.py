"""Agents of 1,000 nodes that are none: one process is every node's kubelet, and the agent behind it.

The API server reaches all of them, since the nodes' addresses are this network namespace's own. Pods of the DaemonSet are
bound to the node that they are for, and reported as running. Port-forwards lead to an agent that speaks the real protocol and
sees no packets: it reports its namespaces and rules where they are asked for, once a second that it is alive, and says goodbye.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from benchmarks._big_cluster import Size, node_address, pod_address
from kubectl_genainet import __version__, wire
from kubectl_genainet.model.events import Bye, Event, Hello, Progress, Tick
from kubectl_genainet.model.node import Device, NetNs, NodeReport, RulesetDump

KUBELET_PORT = 10250
NODES_RANGE = "172.20.0.0/16"
_NAMESPACE = "genainet"
_AT_A_TIME = 32  # pods that are bound and reported
_PROTOCOL = "v4.channel.k8s.io"


def rules(services: int) -> str:
    """A node's rules as kube-proxy writes them in iptables mode, in little: a chain a Service."""
    chains = "".join(f":KUBE-SVC-{n:016d} - [0:0]\n" for n in range(services))
    jumps = "".join(
        f'-A KUBE-SERVICES -d 10.96.{32 + (n >> 8)}.{n & 255}/32 -p tcp -m comment --comment "team-{n % 50}/model-{n}:http '
        f'cluster IP" -m tcp --dport 80 -j KUBE-SVC-{n:016d}\n'
        for n in range(services)
    )
    return f"*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n{chains}-A PREROUTING -j KUBE-SERVICES\n{jumps}COMMIT\n"


class Agent:
    """What one node's agent says."""

    def __init__(self, node: str, size: Size, ruleset: str) -> None:
        self._node, self._size, self._ruleset = node, size, ruleset
        self._number = int(node.rpartition("-")[2])

    def hello(self) -> Hello:
        return Hello(
            node=self._node,
            protocol=wire.PROTOCOL,
            version=__version__,
            kernel="6.1.0",
            boot_id=self._node,
            t_ns=time.monotonic_ns(),
            realtime_ns=time.time_ns(),
            tier="tracepoint",
        )

    def report(self) -> NodeReport:
        host = Device(ifindex=2, name="eth0", mtu=1500, addresses=(node_address(self._number),))
        namespaces = [NetNs(inode=1, host=True, devices=(host,))]
        for pod in range(self._number, self._size.pods, self._size.nodes):
            device = Device(ifindex=2, name="eth0", mtu=1500, addresses=(pod_address(pod),))
            namespaces.append(NetNs(inode=100 + pod, host=False, devices=(device,)))
        return NodeReport(node=self._node, t_ns=time.monotonic_ns(), namespaces=tuple(namespaces))

    def dump(self) -> RulesetDump:
        return RulesetDump(node=self._node, t_ns=time.monotonic_ns(), source="iptables-nft", text=self._ruleset)

    async def answer(self, method: str, path: str, body: bytes, ended: asyncio.Event) -> AsyncIterator[Event]:
        match method, path.partition("?")[0]:
            case "GET", "/v1/hello":
                yield self.hello()
            case "GET", "/v1/node":
                yield self.report()
            case "GET", "/v1/rulesets":
                yield self.dump()
            case "POST", "/v1/trace":
                request = msgspec.json.decode(body, type=wire.TraceRequest)
                yield self.hello()
                if not request.node_when_seen:
                    yield self.report()
                    if request.rulesets:
                        yield self.dump()
                yield Progress(node=self._node, stage="attached", t_ns=time.monotonic_ns())
                deadline = time.monotonic() + request.timeout_s
                while not ended.is_set() and time.monotonic() < deadline:
                    yield Tick(node=self._node, t_ns=time.monotonic_ns())
                    try:
                        await asyncio.wait_for(ended.wait(), min(1.0, max(0.0, deadline - time.monotonic())))
                    except TimeoutError:
                        continue
                yield Progress(node=self._node, stage="detached", t_ns=time.monotonic_ns())
                yield Bye(node=self._node, emitted=0, sent=0, lost=0, reason="timeout")


class Kubelets:
    """The kubelets' server, and what they tell the API server."""

    def __init__(self, server: str, ca: str, token: str, ruleset: str) -> None:
        self._server, self._size, self._ruleset = server, Size(), ruleset
        self._headers = {"Authorization": f"Bearer {token}"}
        self._ssl = ssl.create_default_context(cafile=ca)
        self._nodes: dict[str, str] = {}  # by pod

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        channel = web.WebSocketResponse(protocols=(_PROTOCOL,))
        await channel.prepare(request)
        port = int(request.query.get("port") or request.query["ports"]).to_bytes(2, "little")
        for number in (b"\0", b"\1"):
            await channel.send_bytes(number + port)
        agent = Agent(self._nodes[request.match_info["pod"]], self._size, self._ruleset)
        head, _, body = (await self._received(channel)).partition(b"\r\n\r\n")
        method, path, _ = head.split(b" ", 2)
        ended = asyncio.Event()
        reader = asyncio.create_task(self._until_told(channel, ended))
        headers = f"HTTP/1.1 200 OK\r\nGenainet-Version: {__version__}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await channel.send_bytes(b"\0" + headers.encode())
        async for event in agent.answer(method.decode(), path.decode(), body, ended):
            line = wire.encode(event)
            await channel.send_bytes(b"\0%x\r\n%s\r\n" % (len(line), line))
        await channel.send_bytes(b"\0" + b"0\r\n\r\n")
        reader.cancel()
        await channel.close()
        return channel

    @staticmethod
    async def _received(channel: web.WebSocketResponse) -> bytes:
        """The agent's request, with all of its body."""
        received = b""
        async for message in channel:
            received += message.data[1:]
            head, end, body = received.partition(b"\r\n\r\n")
            length = [
                line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            ]
            if end and len(body) >= int(length[0] if length else 0):
                break
        return received

    @staticmethod
    async def _until_told(channel: web.WebSocketResponse, ended: asyncio.Event) -> None:
        """Whatever the client says after its request, and that it goes, ends the trace."""
        await channel.receive()
        ended.set()

    async def follow_pods(self) -> None:
        """Binds each pod of the namespace to its node, and reports it as running."""
        path = f"{self._server}/api/v1/namespaces/{_NAMESPACE}/pods"
        limit = asyncio.Semaphore(_AT_A_TIME)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout, read_bufsize=1 << 22) as session:
            begun = set()
            tasks = set()
            while True:
                async with session.get(path, params={"watch": "true"}, ssl=self._ssl) as changes:
                    async for line in changes.content:
                        pod: dict[str, Any] = json.loads(line)["object"]
                        name = pod["metadata"].get("name", "")
                        if name and name not in begun:
                            begun.add(name)
                            tasks.add(asyncio.create_task(self._run(session, limit, path, pod)))

    async def _run(
        self, session: aiohttp.ClientSession, limit: asyncio.Semaphore, path: str, pod: dict[str, Any]
    ) -> None:
        name = pod["metadata"]["name"]
        terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        node = self._nodes[name] = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        address = node_address(int(node.rpartition("-")[2]))
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "Initialized")]
        containers = [
            {"name": c["name"], "image": c["image"], "imageID": "", "ready": True, "restartCount": 0, "state": _RUNNING}
            for c in pod["spec"]["containers"]
        ]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": address}
        report = {"status": {**status, "conditions": ready, "containerStatuses": containers}}
        merge = {"Content-Type": "application/merge-patch+json"}
        async with limit:
            async with session.post(f"{path}/{name}/binding", json=binding, ssl=self._ssl) as answer:
                answer.raise_for_status()
            body = json.dumps(report)
            async with session.patch(f"{path}/{name}/status", data=body, headers=merge, ssl=self._ssl) as answer:
                answer.raise_for_status()


_RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


async def serve(kubelets: Kubelets, certificate: Path, key: Path) -> None:
    subprocess.run(["ip", "route", "replace", "local", NODES_RANGE, "dev", "lo"], check=True)
    app = web.Application()
    app.router.add_get("/portForward/{namespace}/{pod}", kubelets.port_forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    await web.TCPSite(runner, "0.0.0.0", KUBELET_PORT, ssl_context=context, backlog=2048).start()
    print("ready", flush=True)
    await kubelets.follow_pods()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--certificate", required=True, type=Path, help="of the kubelets, and the API server's CA")
    parser.add_argument("--key", required=True, type=Path)
    parser.add_argument("--token", required=True)
    parser.add_argument("--services", type=int, default=Size().services, help="that each node's rules have")
    arguments = parser.parse_args()
    kubelets = Kubelets(arguments.server, str(arguments.certificate), arguments.token, rules(arguments.services))
    asyncio.run(serve(kubelets, arguments.certificate, arguments.key))


if __name__ == "__main__":
    main()
