"""The lab's programs: the pods' own, the DNS servers, the agents. Their configuration, start and reload."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs import processes
from kubectl_genainet.lab.spec import CLUSTER_DOMAIN, AddressFamily, LabSpec, netns_name
from kubectl_genainet.lab.state import LabFolder, LabRecord, replace_file

Object = dict[str, Any]

CALLS, PERIOD = "lab.genainet/calls", "lab.genainet/period"
UPSTREAM, REQUEST, RESPONSE = "lab.genainet/upstream", "lab.genainet/request-bytes", "lab.genainet/response-bytes"
FROM_OUTSIDE = "lab.genainet/called-from-outside"
OUTSIDE = "outside"  # name of the clients beyond the cluster, in the fabric's namespace
AGENT = "kubectl_genainet.agent.main"
OBJECTS = "objects"
OBJECTS_PROGRAM = "kubectl_genainet.lab.programs.objects"
_READY_WITHIN = 120.0  # one that ends before is not waited for
_PATIENCE_S = 5.0  # until it is said what is waited for, and between two times


def is_dns(pod: Object) -> bool:
    return bool(pod["metadata"].get("labels", {}).get("k8s-app") == "kube-dns")


def member_key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def pods_in(objects: list[Object]) -> list[Object]:
    """Pods that have a namespace of their own."""
    return [o for o in objects if o["kind"] == "Pod" and not o["spec"].get("hostNetwork")]


def log_path(folder: LabFolder, role: str) -> Path:
    """Where the output of a process of the lab goes; `role` as in the record's `pids`."""
    return folder.path / "log" / f"{role.replace('/', '.')}.log"


# --- resolv.conf ----------------------------------------------------------------------------------------------------


def resolv_conf(pod: Object, objects: list[Object], spec: LabSpec) -> str:
    """A pod's /etc/resolv.conf, as kubelet writes it for its dnsPolicy (ClusterFirst: search domains, ndots:5)."""
    dns = next((o for o in objects if o["kind"] == "Service" and o["metadata"]["name"] == "kube-dns"), None)
    if pod["spec"].get("dnsPolicy") == "Default" or dns is None:
        return "".join(f"nameserver {f.fabric_ip}\n" for f in spec.families)
    namespace = pod["metadata"]["namespace"]
    domains = (f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN)
    return f"search {' '.join(domains)}\nnameserver {dns['spec']['clusterIP']}\noptions ndots:5\n"


def netns_files(folder: LabFolder) -> Path:
    """What /etc/netns is to ip-netns(8): files of single network namespaces, by their name."""
    return folder.path / "netns"


def resolv_path(folder: LabFolder, namespace: str) -> Path:
    """The resolv.conf of the pod that has this network namespace."""
    return netns_files(folder) / namespace / "resolv.conf"


# --- the pods' program ----------------------------------------------------------------------------------------------


def workload_config(folder: LabFolder, record: LabRecord, objects: list[Object]) -> Object:
    """What lab/programs/workload.py reads: every pod with its servers and calls."""
    spec = record.spec
    members = []
    for pod in pods_in(objects):
        if is_dns(pod) or member_key(pod) not in record.pods:
            continue
        notes = pod["metadata"].get("annotations", {})
        name = member_key(pod)
        members.append(
            {
                "name": name,
                "netns": record.pods[name],
                "ips": [i["ip"] for i in pod["status"]["podIPs"]],
                "ports": _tcp_ports(pod),
                "resolv_conf": str(resolv_path(folder, record.pods[name])),
                "calls": notes.get(CALLS, "").split(),
                "period": float(notes.get(PERIOD, "1s").removesuffix("s")),
                "upstream": notes.get(UPSTREAM, ""),
                "request_bytes": int(notes.get(REQUEST, 200)),
                "response_bytes": int(notes.get(RESPONSE, 200)),
                "behaviour": record.behaviour(name),
                "stream_log": str(log_path(folder, "streams")),
            }
        )
    fabric = netns_name(spec.name, "fabric")
    members.append({"name": OUTSIDE, "netns": fabric, "ips": [], "calls": outside_calls(objects), "period": 1.0})
    upstream = {"netns": fabric, "ips": [f.fabric_ip for f in spec.families], "delay_ms": record.upstream_delay_ms}
    return {"pods": members, "upstream": upstream}


def _tcp_ports(pod: Object) -> list[int]:
    ports = [p for c in pod["spec"].get("containers", ()) for p in c.get("ports", ())]
    return [p["containerPort"] for p in ports if p.get("protocol", "TCP") == "TCP"]


def outside_calls(objects: list[Object]) -> list[str]:
    """URLs that clients outside the cluster call: on every node, the node ports of the Services annotated so."""
    nodes = [o["status"]["addresses"][0]["address"] for o in objects if o["kind"] == "Node"]
    return [
        f"http://{ip}:{port['nodePort']}/"
        for service in objects
        if service["kind"] == "Service" and service["metadata"].get("annotations", {}).get(FROM_OUTSIDE) == "true"
        for port in service["spec"]["ports"]
        if port["protocol"] == "TCP" and port.get("nodePort")
        for ip in nodes
    ]


def write_configs(folder: LabFolder, record: LabRecord, objects: list[Object]) -> None:
    """Writes every file that the programs read."""
    for pod in pods_in(objects):
        if member_key(pod) not in record.pods:
            continue
        path = resolv_path(folder, record.pods[member_key(pod)])
        text = resolv_conf(pod, objects, record.spec).encode()
        if not path.exists() or path.read_bytes() != text:
            replace_file(path, text)
    config = workload_config(folder, record, objects)
    replace_file(folder.path / "workload.json", json.dumps(config).encode())
    replace_file(folder.path / "dns.hosts", dns_hosts(objects).encode())


def start_workload(folder: LabFolder, record: LabRecord) -> None:
    command = [sys.executable, "-m", "kubectl_genainet.lab.programs.workload", str(folder.path / "workload.json")]
    pid = processes.spawn(command, lab_id=record.id, log=log_path(folder, "workload"))
    record.pids["workload"] = pid


def reload_workload(folder: LabFolder) -> None:
    """Has the pods' program follow its file; returns when it does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_READY_WITHIN)
        try:
            sock.connect(str(folder.path / "workload.sock"))
            sock.sendall(b"reload\n")
            reply = sock.recv(4096).decode().strip()
        except OSError as error:
            raise GenainetError(
                f"the pods' program of the lab does not answer: {error}", f"See {folder.path}/log/workload.log."
            ) from None
    if reply != "ok":
        raise GenainetError(f"the pods' program of the lab refused its configuration: {reply}")


# --- DNS ------------------------------------------------------------------------------------------------------------


def dns_hosts(objects: list[Object]) -> str:
    """The cluster's names as a hosts file: Services by ClusterIP, headless ones by their ready endpoints."""
    lines = []
    for service in objects:
        if service["kind"] != "Service" or service["spec"]["type"] == "ExternalName":
            continue
        metadata = service["metadata"]
        name = f"{metadata['name']}.{metadata['namespace']}.svc.{CLUSTER_DOMAIN}"
        ips = service["spec"].get("clusterIPs", [])
        for endpoint_slice in objects if ips == ["None"] else ():
            if endpoint_slice["kind"] == "EndpointSlice" and _belongs(endpoint_slice, metadata):
                for endpoint in endpoint_slice["endpoints"]:
                    if endpoint["conditions"]["ready"]:
                        address, pod = endpoint["addresses"][0], endpoint["targetRef"]["name"]
                        lines += [f"{address} {name}", f"{address} {pod}.{name}"]
        lines += [f"{ip} {name}" for ip in ips if ip != "None"]
    return "\n".join((*lines, ""))


def _belongs(endpoint_slice: Object, metadata: Object) -> bool:
    own = endpoint_slice["metadata"]
    return bool(
        own["namespace"] == metadata["namespace"] and own["labels"]["kubernetes.io/service-name"] == metadata["name"]
    )


def dns_command(folder: LabFolder, pod: Object, spec: LabSpec) -> list[str]:
    """dnsmasq with the records and the behaviour of CoreDNS: the cluster's domain itself, all else to the upstream."""
    listen = [f"--listen-address={i['ip']}" for i in pod["status"]["podIPs"]]
    servers = [f"--server={f.fabric_ip}" for f in spec.families if f is AddressFamily.IPV4]
    return [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--group=root",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        *listen,
        f"--local=/{CLUSTER_DOMAIN}/",
        *servers,
        f"--addn-hosts={folder.path / 'dns.hosts'}",
        "--local-ttl=5",
        "--no-negcache",
        "--cache-size=0",
        "--dns-forward-max=2000",
        "--log-facility=-",
    ]


def start_dns(folder: LabFolder, record: LabRecord, objects: list[Object]) -> None:
    for pod in filter(is_dns, pods_in(objects)):
        name = member_key(pod)
        pid = processes.spawn(
            dns_command(folder, pod, record.spec),
            lab_id=record.id,
            namespace=record.pods[name],
            log=log_path(folder, name),
        )
        record.pids[name] = pid


def reload_dns(record: LabRecord, objects: list[Object]) -> None:
    """dnsmasq reads its hosts file again on SIGHUP."""
    for pod in filter(is_dns, pods_in(objects)):
        pid = record.pids.get(member_key(pod), 0)
        if pid and processes.alive(pid):
            os.kill(pid, signal.SIGHUP)


# --- agents ---------------------------------------------------------------------------------------------------------


def start_agents(folder: LabFolder, record: LabRecord) -> None:
    """One agent a node, the program that the DaemonSet runs; none where this installation has no agent."""
    if importlib.util.find_spec(AGENT) is None:
        return
    for node, namespace in record.nodes.items():
        path = folder.path / f"agent-{node}.sock"
        command = [
            sys.executable,
            "-m",
            AGENT,
            "serve",
            "--node",
            node,
            "--socket",
            str(path),
            "--host-netns",
            f"/run/netns/{namespace}",
            *(["--record", str(history_folder(folder, node))] if record.spec.record else []),
        ]
        pid = processes.spawn(
            command,
            lab_id=record.id,
            log=log_path(folder, f"agent/{node}"),
            environment={"GENAINET_NETNS_FILES": str(netns_files(folder))},
        )
        record.pids[f"agent/{node}"] = pid
        record.agents[node] = str(path)
    if record.spec.record:
        _start_objects_recorder(folder, record)


def history_folder(folder: LabFolder, node: str) -> Path:
    """Where a node's recording is, or with OBJECTS that of the lab's objects."""
    return folder.path / "history" / node


def _start_objects_recorder(folder: LabFolder, record: LabRecord) -> None:
    path = folder.path / f"{OBJECTS}.sock"
    places = ["--lab", record.spec.name, "--socket", str(path), "--record", str(history_folder(folder, OBJECTS))]
    record.pids[OBJECTS] = processes.spawn(
        [sys.executable, "-m", OBJECTS_PROGRAM, *places], lab_id=record.id, log=log_path(folder, OBJECTS)
    )
    record.objects = str(path)


# --- readiness ------------------------------------------------------------------------------------------------------


def wait_until_ready(folder: LabFolder, record: LabRecord, progress: Callable[[str], None] = lambda _: None) -> None:
    """Waits for the control socket of the pods' program, for port 53 of each DNS pod, for the agents' sockets."""
    started = told_at = time.monotonic()
    for number, (role, pid) in enumerate(record.pids.items()):
        if role in record.pods:
            ready = partial(_listens_udp, record.pods[role], 53)
        elif role == "workload":
            ready = partial(_accepts, folder.path / "workload.sock")
        elif role == OBJECTS:
            ready = partial(_accepts, Path(record.objects))
        else:
            ready = partial(_accepts, Path(record.agents[role.removeprefix("agent/")]))
        while not ready():
            now = time.monotonic()
            if not processes.alive(pid):
                raise GenainetError(f"the lab's process of {role} ended while it started", _last_words(folder, role))
            if now - started > _READY_WITHIN:
                problem = f"the lab's process of {role} runs, but was not ready within {_READY_WITHIN:.0f} s"
                raise GenainetError(f"{problem}: is the machine overloaded?", _last_words(folder, role))
            if now - told_at > _PATIENCE_S:
                told_at = now
                progress(f"waiting for {role} to start ({number} of {len(record.pids)} processes are ready)")
            time.sleep(0.01)


def _last_words(folder: LabFolder, role: str) -> str:
    """The end of a process's log; the folder goes when the lab does."""
    try:
        lines = log_path(folder, role).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return " | ".join(lines[-3:]) or "It wrote nothing."


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True


def _listens_udp(namespace: str, port: int) -> bool:
    with netns.inside(namespace):
        text = Path("/proc/thread-self/net/udp").read_text() + Path("/proc/thread-self/net/udp6").read_text()
    return f":{port:04X} " in text
