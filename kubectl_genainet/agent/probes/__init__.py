"""The probes: each declares its C file, the kernel fields it reads, where it attaches and how its events decode."""

from kubectl_genainet.agent.probes import connections, dns, drops, packet

PROBES = {probe.name: probe for probe in (packet.PROBE, connections.PROBE, drops.PROBE, dns.PROBE)}
