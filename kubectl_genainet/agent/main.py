"""`genainet-agent serve`: the program that runs on every node, as a DaemonSet's pod or in the lab."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import sys
import tempfile
from pathlib import Path

from kubectl_genainet.agent import audit
from kubectl_genainet.agent.exact.node import remove_leftovers
from kubectl_genainet.agent.node.inventory import Inventory, host_name
from kubectl_genainet.agent.record.options import CPU_PERCENT, RecordOptions
from kubectl_genainet.agent.serve import memory
from kubectl_genainet.agent.serve.auth import Capability
from kubectl_genainet.agent.serve.listening import serve
from kubectl_genainet.agent.serve.server import AnyCaller, Server
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.units import quantity, seconds

LEAST_RECORDING = 8 << 20  # bytes
CACHE = Path(tempfile.gettempdir()) / "kubectl-genainet"


def main() -> None:
    """Parses the arguments and serves until SIGTERM."""
    parser = argparse.ArgumentParser(prog="genainet-agent", description="The node agent of kubectl-genainet.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("serve", help="serve requests until SIGTERM")
    command.add_argument("--node", default=host_name(), help="name of this node; default: $NODE_NAME, else the host's")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", help="unix socket to serve on; only its owner may open it")
    where.add_argument("--listen", metavar="127.0.0.1:PORT", help="loopback address to serve on")
    command.add_argument(
        "--token-file", default="", help="file with the capability that callers must show; with --listen"
    )
    command.add_argument(
        "--host-netns", default="", help="path of the node's network namespace; default: the container runtime's"
    )
    command.add_argument("--cache", default=str(CACHE), help="folder for what is read from the kernel once")
    _metrics_options(command)
    _record_options(command)
    arguments = parser.parse_args()
    if bool(arguments.listen) != bool(arguments.token_file):
        parser.error(
            "--listen needs --token-file: every process of the node reaches a loopback port; --socket needs none"
        )
    try:
        inventory = Inventory(arguments.node, arguments.host_netns)
        host, _, port = (arguments.listen or "").rpartition(":")
        if host and not ipaddress.ip_address(host.strip("[]")).is_loopback:
            raise GenainetError(f"{host} is not a loopback address: the agent opens no port on the node")
        authenticator = Capability(arguments.token_file) if arguments.token_file else AnyCaller()
        for what in remove_leftovers(inventory.host_netns):  # of an agent that was killed while it traced rules
            audit.removed(what, "")
        readers = Capability(arguments.history_token_file) if arguments.history_token_file else None
        server = Server(inventory, arguments.cache, authenticator, memory_mib=memory.limit_mib(), readers=readers)
        asyncio.run(_serve(server, arguments, host, int(port or 0)))
    except (GenainetError, OSError, ValueError) as error:
        hint = getattr(error, "hint", "")
        sys.exit(f"genainet-agent: {error}" + (f"\n  {hint}" if hint else ""))


def _metrics_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--metrics",
        nargs="?",
        const="127.0.0.1:9913",
        default="",
        metavar="ADDRESS:PORT",
        help="keep the drops and dns probes loaded and serve Prometheus metrics here, to anybody who can connect; "
        "without an address on all of the namespace's; default: %(const)s",
    )
    command.add_argument(
        "--identities",
        default="",
        metavar="FILE",
        help="names of addresses, for the metrics; read again when it changes",
    )
    command.add_argument(
        "--otlp-endpoint",
        default="",
        metavar="URL",
        help="keep the probes loaded and send flows to this OpenTelemetry Collector, as logs by OTLP/HTTP; "
        "$OTEL_EXPORTER_OTLP_HEADERS is sent along",
    )


def _record_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--record",
        default="",
        metavar="DIR",
        help="keep the probes loaded and record here what fails, totals of the rest, and what changes on the node",
    )
    command.add_argument("--record-size", default="256Mi", help="what the recording may take; default: %(default)s")
    command.add_argument("--record-for", default="24h", help="how far back it reaches; default: %(default)s")
    command.add_argument(
        "--record-dns", choices=("on", "off"), default="on", help="off: names that are looked up are hashed"
    )
    command.add_argument(
        "--record-cpu", type=float, default=CPU_PERCENT, metavar="PERCENT", help="of one core; default: %(default)g"
    )
    command.add_argument(
        "--history-token-file", default="", help="file with the capability of those who may read the recording"
    )


def record_options(arguments: argparse.Namespace) -> RecordOptions | None:
    """Raises GenainetError for a size or a time that is none."""
    if not arguments.record:
        return None
    size, age_s = int(quantity(arguments.record_size)), seconds(arguments.record_for)
    if size < LEAST_RECORDING:
        raise GenainetError(f"{arguments.record_size!r} is not a size of at least {LEAST_RECORDING >> 20}Mi")
    if age_s is None or age_s < 60:
        raise GenainetError(f"{arguments.record_for!r} is not a time of at least 1m")
    return RecordOptions(
        folder=arguments.record,
        size=size,
        age_s=age_s,
        dns_names=arguments.record_dns == "on",
        cpu_percent=arguments.record_cpu,
    )


async def _serve(server: Server, arguments: argparse.Namespace, host: str, port: int) -> None:
    """The server and, where it was asked for, the always-on session beside it."""
    async with contextlib.AsyncExitStack() as stack:
        record = record_options(arguments)
        if arguments.metrics or arguments.otlp_endpoint or record is not None:
            # Imported here: the agent that has no metrics to serve needs no memory for them.
            from kubectl_genainet.agent.always.session import always_on

            options = (arguments.metrics, arguments.identities, arguments.otlp_endpoint, record)
            await stack.enter_async_context(always_on(server, *options))
        await serve(server, socket_path=arguments.socket or "", host=host, port=port)


if __name__ == "__main__":
    main()
