"""IPVS virtual servers of the node's host namespace, by generic netlink, in the words of `ipvsadm -Sn`.

So a live node and a bundle hold the same text, and the agent's image needs no ipvsadm. Attributes:
include/uapi/linux/ip_vs.h; the text: print_service_entry and print_dest_entry of ipvsadm 1.31.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ipvs import (
    GENL_NAME,
    GENL_VERSION,
    IPVS_CMD_GET_DEST,
    IPVS_CMD_GET_SERVICE,
    ipvsmsg,
)

from kubectl_genainet.agent.node.netns import inside

TIMEOUT_S = 20
Attributes = Mapping[str, Any]
_PERSISTENT, _ONE_PACKET = 0x1, 0x4  # IP_VS_SVC_F_*
_FLAGS = {0x8: "flag-1", 0x10: "flag-2", 0x20: "flag-3"}
_NAMED_FLAGS = {
    "sh": _FLAGS | {0x8: "sh-fallback", 0x10: "sh-port"},
    "mh": _FLAGS | {0x8: "mh-fallback", 0x10: "mh-port"},
}
_FORWARD = {0: "-m", 1: "-m", 2: "-i", 3: "-g", 4: "-g"}  # IP_VS_CONN_F_FWD_MASK: masq, local, tunnel, route, bypass
_TUNNELS = {0: "ipip", 1: "gue", 2: "gre"}
_TUNNEL_FLAGS = {0: " --tun-nocsum", 1: " --tun-csum", 2: " --tun-remcsum"}
_OPTIONS = {socket.IPPROTO_TCP: "-t", socket.IPPROTO_UDP: "-u", socket.IPPROTO_SCTP: "--sctp-service"}


def _addresses_as_bytes(nla_map: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, "cdata" if name.endswith(("_ADDR", "_NETMASK")) else kind) for name, kind in nla_map)


class Message(ipvsmsg):  # type: ignore[misc]  # pyroute2 has no types
    """pyroute2's message with addresses left as bytes: the kernel tells their family after them."""

    class service(ipvsmsg.service):  # type: ignore[misc]
        nla_map = _addresses_as_bytes(ipvsmsg.service.nla_map)

    class dest(ipvsmsg.dest):  # type: ignore[misc]
        nla_map = _addresses_as_bytes(ipvsmsg.dest.nla_map)


def read_ipvs(host_netns: str) -> tuple[str, str]:
    """(`ipvsadm -Sn` text, error). Both empty where the kernel has no IPVS or no virtual servers.

    Where netlink fails, ipvsadm is asked, and the text begins with a comment that says why.
    """
    try:
        fd = os.open(host_netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return "", f"{host_netns}: {error.strerror}"
    try:
        # To ask for the family by name, or to run ipvsadm, would load ip_vs; a diagnosis must not.
        if not inside(fd, lambda: Path("/proc/thread-self/net/ip_vs").exists()):
            return "", ""
        try:
            return inside(fd, _read), ""
        except (OSError, NetlinkError, ValueError, LookupError) as error:
            return _by_ipvsadm(host_netns, f"netlink: {error}")
    finally:
        os.close(fd)


def _read() -> str:
    with GenericNetlinkSocket() as ipvs:
        ipvs.bind(GENL_NAME, Message)
        services = [_attributes(m, "IPVS_CMD_ATTR_SERVICE") for m in _dump(ipvs, IPVS_CMD_GET_SERVICE)]
        return render(
            [
                (service, [_attributes(m, "IPVS_CMD_ATTR_DEST") for m in _dump(ipvs, IPVS_CMD_GET_DEST, service)])
                for service in services
            ]
        )


def _dump(ipvs: GenericNetlinkSocket, command: int, service: Attributes | None = None) -> Iterable[Any]:
    message = Message()
    message["cmd"], message["version"] = command, GENL_VERSION
    if service is not None:
        names = ("AF", "FWMARK") if service.get("FWMARK") else ("AF", "PROTOCOL", "ADDR", "PORT")
        attributes = [(f"IPVS_SVC_ATTR_{name}", service[name]) for name in names]
        message["attrs"] = [("IPVS_CMD_ATTR_SERVICE", {"attrs": attributes})]
    answers: Iterable[Any] = ipvs.nlm_request(message, msg_type=ipvs.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
    return answers


def _attributes(message: Any, name: str) -> Attributes:
    """A message's service or destination by its attributes' names, without their prefix."""
    nested = message.get_attr(name)
    if nested is None:
        raise ValueError(f"the kernel's answer has no {name}")
    return {key.removeprefix("IPVS_SVC_ATTR_").removeprefix("IPVS_DEST_ATTR_"): value for key, value in nested["attrs"]}


def render(servers: Sequence[tuple[Attributes, Sequence[Attributes]]]) -> str:
    """Services, each with its destinations, as `ipvsadm -Sn` prints them, in its order.

    Addresses are the kernel's 16 bytes, of which an IPv4 address is the first four; ports are in host order.
    """
    lines = []
    for service, destinations in sorted(servers, key=lambda s: _service_order(s[0])):
        name = _service_name(service)
        lines.append(f"-A {name} -s {service['SCHED_NAME']}{_service_options(service)}")
        for dest in sorted(destinations, key=lambda d: _dest_order(d, service)):
            address = _address(dest["ADDR"], dest.get("ADDR_FAMILY") or service["AF"])
            forward = _FORWARD.get(dest["FWD_METHOD"] & 7, "-m")
            tunnel = _tunnel(dest) if forward == "-i" else ""
            lines.append(f"-a {name} -r {_joined(address, dest['PORT'])} {forward} -w {dest['WEIGHT']}{tunnel}")
    return "".join(f"{line}\n" for line in lines)


def _service_name(service: Attributes) -> str:
    if service.get("FWMARK"):
        return f"-f {service['FWMARK']}" + (" -6" if service["AF"] == socket.AF_INET6 else "")
    option = _OPTIONS.get(service["PROTOCOL"])
    if option is None:
        raise ValueError(f"an IPVS service of protocol {service['PROTOCOL']}")
    return f"{option} {_joined(_address(service['ADDR'], service['AF']), service['PORT'])}"


def _service_options(service: Attributes) -> str:
    flags = service["FLAGS"]["flags"]
    options = ""
    if flags & _PERSISTENT:
        options += f" -p {service['TIMEOUT']}"
        mask = bytes(service["NETMASK"])
        if service["AF"] == socket.AF_INET and mask != b"\xff\xff\xff\xff":
            options += f" -M {ipaddress.IPv4Address(mask)}"
        elif service["AF"] == socket.AF_INET6 and int.from_bytes(mask, sys.byteorder) != 128:
            options += f" -M {int.from_bytes(mask, sys.byteorder)}"
    if service.get("PE_NAME"):
        options += f" --pe {service['PE_NAME']}"
    if flags & _ONE_PACKET:
        options += " -o"
    names = _NAMED_FLAGS.get(service["SCHED_NAME"], _FLAGS)
    chosen = [name for bit, name in names.items() if flags & bit]
    return options + (f" -b {','.join(chosen)}" if chosen else "")


def _tunnel(dest: Attributes) -> str:
    """The tunnel's kind, which kernels before 5.3 don't tell (IP_VS_CONN_F_TUNNEL_TYPE_*)."""
    kind = _TUNNELS.get(dest.get("TUN_TYPE", -1))
    if kind is None:
        return ""
    port = f" --tun-port {socket.ntohs(dest['TUN_PORT'])}" if kind == "gue" else ""
    checksum = _TUNNEL_FLAGS.get(dest.get("TUN_FLAGS", 0), "") if kind != "ipip" else ""
    return f" --tun-type {kind}{port}{checksum}"


def _address(data: bytes, family: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if family == socket.AF_INET6:
        return ipaddress.IPv6Address(bytes(data[:16]))
    return ipaddress.IPv4Address(bytes(data[:4]))


def _joined(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _service_order(service: Attributes) -> tuple[int, int, int, bytes, int]:
    mark = service.get("FWMARK") or 0
    address = b"" if mark else _address(service["ADDR"], service["AF"]).packed
    return mark, service["AF"], service.get("PROTOCOL") or 0, address, service.get("PORT") or 0


def _dest_order(dest: Attributes, service: Attributes) -> tuple[int, bytes, int]:
    family = dest.get("ADDR_FAMILY") or service["AF"]
    return family, _address(dest["ADDR"], family).packed, dest["PORT"]


def _by_ipvsadm(host_netns: str, why: str) -> tuple[str, str]:
    if shutil.which("ipvsadm") is None:
        return "", f"{why}; and there is no ipvsadm"
    command = ("nsenter", f"--net={host_netns}", "ipvsadm", "-Sn")
    try:
        # Not charged to the thread that asks: where netlink can't be read, it is one command a look.
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{why}; ipvsadm: {error}"
    if done.returncode:
        return "", f"{why}; ipvsadm: {done.stderr.decode(errors='replace').strip()[:300]}"
    return f"# read by ipvsadm, because of {why}\n{done.stdout.decode(errors='replace')}", ""
