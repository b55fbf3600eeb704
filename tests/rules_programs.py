"""firewalld, ufw and Docker themselves, from Debian's packages, at work in the node's namespace of a `Wire`.

Each runs in a mount and a PID namespace of its own, with its files laid over the machine's (scripts/firewalls.sh), writes
its rules, and is ended by kill -9, as whoever undoes them at the end would.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from kubectl_genainet.model.packet import Protocol
from tests.rules_wire import CLIENTS, DESTINATIONS, NODE_IPS, PORTS, Flow, Wire

_SETUP = Path(__file__).parent.parent / "scripts" / "firewalls.sh"
_LAID_OVER = """set -e
mount -t tmpfs tmpfs /run
cp -a /etc /run/etc; cp -a "$1/etc/." /run/etc; mount --bind /run/etc /etc
mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
until_it() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; "$@"; }
"""
_FIREWALLD = """mkdir -p /run/dbus /run/firewalld /etc/firewalld/zones /etc/firewalld/policies
sed -i 's/^FirewallBackend=.*/FirewallBackend=BACKEND/' /etc/firewalld/firewalld.conf
cat > /etc/firewalld/zones/public.xml <<END
<zone><short>Public</short><interface name="cli0"/><service name="ssh"/><port port="80" protocol="tcp"/>
<forward-port port="443" protocol="tcp" to-port="8080" to-addr="10.8.0.11"/>
<rule family="ipv4"><source address="10.7.0.3"/><port port="80" protocol="tcp"/><reject/></rule><forward/></zone>
END
cat > /etc/firewalld/zones/internal.xml <<END
<zone><short>Internal</short><interface name="srv0"/><service name="ssh"/><masquerade/><forward/></zone>
END
cat > /etc/firewalld/policies/through.xml <<END
<policy target="CONTINUE"><ingress-zone name="public"/><egress-zone name="internal"/><port port="53" protocol="udp"/>
<rule family="ipv4"><destination address="10.96.0.0/16"/><accept/></rule></policy>
END
dbus-daemon --system --nopidfile --nofork >/dev/null 2>&1 &
firewalld --nofork --nopid >/run/log 2>&1 &
until_it firewall-cmd --state
"""
_UFW = """ufw allow 80/tcp
ufw limit 443/tcp
ufw deny from 10.7.0.3 to any port 53 proto udp
ufw reject 8080
ufw route allow in on cli0 out on srv0 to 10.96.0.0/16 port 80 proto tcp
ufw route allow proto udp to 10.8.0.3 port 53
ufw route reject to any port 443 proto tcp
ufw --force enable
"""
_DOCKER = """docker() { command docker -H unix:///run/docker.sock "$@"; }
sysctl -qw net.ipv4.ip_forward=0  # as it is before Docker starts, which then drops what it does not forward
dockerd --data-root /run/data --exec-root /run/exec --pidfile /run/pid --host unix:///run/docker.sock --storage-driver vfs \\
  >/run/log 2>&1 &
until_it docker version
docker network create --subnet 172.30.0.0/24 -o com.docker.network.bridge.name=front0 front
docker network create --internal --subnet 172.31.0.0/24 -o com.docker.network.bridge.name=inner0 inner
cd /run; mkdir -p image/bin; cp -L --parents /bin/sleep $(ldd /bin/sleep | grep -o '/[^ ]*') image
tar -C image -c . | docker import - sleeper
docker run -d --name web --ip 172.30.0.2 --network front -p 8080:80 -p 10.7.0.1:53:53/udp sleeper /bin/sleep 1000
"""
# A container's host port, as a CNI runtime asks portmap for it, after kube-proxy's jump that was there before.
_PORTMAP = """iptables -t nat -N KUBE-SERVICES; iptables -t nat -A PREROUTING -j KUBE-SERVICES
iptables -t nat -A KUBE-SERVICES -d 10.96.0.2/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.8.0.12:8080
export CNI_COMMAND=ADD CNI_CONTAINERID=web CNI_NETNS=/proc/self/ns/net CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni
echo '{"cniVersion": "0.4.0", "name": "front", "type": "portmap", "snat": true, "capabilities": {"portMappings": true},
 "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"},
   {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "10.7.0.1"}]},
 "prevResult": {"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "/proc/self/ns/net"}],
   "ips": [{"version": "4", "address": "10.8.0.11/24", "interface": 0}]}}' | /usr/lib/cni/portmap
"""
CONTAINER = "172.30.0.2"
DOCKER_PORT = "dock0"  # to the servers, who have the container's address once Docker is gone
_OF_CONTAINER = (CONTAINER, NODE_IPS[0])  # and what is published of it
PROGRAMS = {
    "firewalld": _FIREWALLD.replace("BACKEND", "nftables"),
    "firewalld-iptables": _FIREWALLD.replace("BACKEND", "iptables"),
    "ufw": _UFW,
    "docker": _DOCKER,
    "portmap": _PORTMAP,
}
AUTHORS = {
    "firewalld": "firewalld",
    "firewalld-iptables": "firewalld",
    "ufw": "ufw",
    "docker": "Docker",
    "portmap": "portmap",
}


def let_write(wire: Wire, program: str, commands: Iterable[str] = ()) -> None:
    """Makes the rules of a program, changed by `commands`, the node's only ones. Raises RuntimeError with what it said."""
    folder = subprocess.run([_SETUP], check=True, capture_output=True, text=True).stdout.strip()
    wire.inside(wire.node, "nft", "flush", "ruleset")
    inside = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
    script = "\n".join((_LAID_OVER, PROGRAMS[program], *commands))
    wire.inside(wire.node, *inside, "bash", "-c", script, "bash", folder)
    if program == "docker" and DOCKER_PORT not in wire.inside(wire.node, "ip", "-o", "link"):
        wire.link(wire.node, DOCKER_PORT, wire.servers, "eth1")
        wire.inside(wire.node, "ip", "link", "set", DOCKER_PORT, "master", "front0")
        wire.inside(wire.servers, "ip", "address", "add", f"{CONTAINER}/24", "dev", "eth1")
        _wait_for_the_bridge(wire)


def _wait_for_the_bridge(wire: Wire) -> None:
    """Until the port forwards, and what the node asked the container for is forgotten: the address has another MAC now."""
    deadline = time.monotonic() + 10
    while "state forwarding" not in wire.inside(wire.node, "bridge", "link", "show", "dev", DOCKER_PORT):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{DOCKER_PORT} does not forward")
        time.sleep(0.05)
    wire.inside(wire.node, "ip", "neighbour", "flush", "dev", "front0")


def flows_of(wire: Wire, program: str) -> list[Flow]:
    """Every client, destination and port, over TCP and UDP, and pings."""
    docker = program == "docker"
    destinations = (*DESTINATIONS, CONTAINER) if docker else DESTINATIONS
    kinds = [(Protocol.TCP, port) for port in PORTS] + [(Protocol.UDP, port) for port in PORTS] + [(Protocol.ICMP, 8)]
    return [
        Flow(src, wire.port(), dst, dport, protocol, "front0" if docker and dst in _OF_CONTAINER else "srv0")
        for src in (*CLIENTS, NODE_IPS[0])
        for dst in destinations
        for protocol, dport in kinds
    ]
