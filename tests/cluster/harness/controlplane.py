"""etcd and kube-apiserver, ready in a few seconds; kube-controller-manager and kube-scheduler on request.

They run in a network namespace of their own, on an underlay (a bridge, 172.31.0.0/24 and fd31::/64) that the nodes
join. The test run reaches the API server at a loopback port through a forwarder.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import urllib3

from tests.cluster.harness.api import Api
from tests.cluster.harness.binaries import NEWEST, Binaries
from tests.cluster.harness.processes import Daemon, NetNs, run, wait_for

SERVICE_CIDRS = "10.96.0.0/16,fd96::/112"
VM_HOST = "10.0.2.2"  # this machine, for a virtual machine of qemu's
UNDERLAY4, UNDERLAY6 = "172.31.0.{}", "fd31::{:x}"

# user -> groups. Roles for the users without one are for the tests to bind.
USERS = {
    "admin": ("system:masters",),
    "system:kube-controller-manager": (),
    "system:kube-scheduler": (),
    "system:kube-proxy": (),
    **{f"system:node:node-{number}": ("system:nodes",) for number in (1, 2, 3)},
    "viewer": (),
    "tracer": (),
    "deployer": (),
    "nobody": (),
}


class ControlPlane:
    """A running API server, of the newest release or of another. Use as a context manager."""

    def __init__(
        self,
        binaries: Binaries,
        folder: Path,
        name: str = "cp",
        flags: Mapping[str, str] | None = None,
        release: str = NEWEST,
    ) -> None:
        self.binaries, self.folder, self.name = binaries, folder, name
        self.flags = dict(flags or {})
        self.proxy_mode = "iptables"  # of the nodes that join
        self.netns = NetNs(name)
        self.release = release  # the API server's
        self.daemons: dict[str, Daemon] = {}
        self._joined = 1
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self.ip, ip6 = UNDERLAY4.format(1), UNDERLAY6.format(1)
        self.netns.ip("link", "add", "underlay", "type", "bridge")
        self.netns.ip("link", "set", "underlay", "up")
        self.netns.ip("address", "add", f"{self.ip}/24", "dev", "underlay")
        self.netns.ip("address", "add", f"{ip6}/64", "dev", "underlay", "nodad")
        self._make_keys()
        self._write_tokens()
        self.daemon(
            "etcd",
            "etcd",
            "--data-dir",
            str(self.folder / "etcd"),
            "--unsafe-no-fsync",
            # As kubeadm sets it (to 5 s): a list that begins a watch may wait for it, by default ten minutes.
            "--watch-progress-notify-interval",
            "1s",
            "--log-level",
            "warn",
            "--listen-client-urls",
            "http://127.0.0.1:2379",
            "--advertise-client-urls",
            "http://127.0.0.1:2379",
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
        )
        self._forward()
        self.run_apiserver(self.release)

    def _make_keys(self) -> None:
        """One self-signed certificate serves as the CA and as the API server's own."""
        self.ca, key = self.folder / "ca.crt", self.folder / "ca.key"
        names = f"DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1,IP:{self.ip}"
        names += f",IP:{VM_HOST}"
        run(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=kubernetes",
            "-addext",
            f"subjectAltName={names}",
            "-keyout",
            str(key),
            "-out",
            str(self.ca),
        )
        run("openssl", "genrsa", "-out", str(self.folder / "sa.key"), "2048")

    def _write_tokens(self) -> None:
        self.tokens = {user: f"token-{user.replace(':', '-')}-{self.name}" for user in USERS}
        lines = [f'{self.tokens[u]},{u},{u},"{",".join(groups)}"' for u, groups in USERS.items()]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")

    def _forward(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.set_inheritable(True)
        self.server = f"https://127.0.0.1:{listener.getsockname()[1]}"
        script = Path(__file__).with_name("forwarder.py")
        argv = [sys.executable, str(script), str(listener.fileno()), "127.0.0.1", "6443"]
        log = self.folder / "forwarder.log"
        self.daemons["forwarder"] = Daemon("forwarder", argv, log, netns=self.netns, pass_fds=[listener.fileno()])
        listener.close()

    def _apiserver_flags(self) -> list[str]:
        flags = {
            "etcd-servers": "http://127.0.0.1:2379",
            "secure-port": "6443",
            "bind-address": "0.0.0.0",
            "advertise-address": self.ip,
            "tls-cert-file": str(self.ca),
            "tls-private-key-file": str(self.folder / "ca.key"),
            "token-auth-file": str(self.folder / "tokens.csv"),
            "service-account-key-file": str(self.folder / "sa.key"),
            "service-account-signing-key-file": str(self.folder / "sa.key"),
            "service-account-issuer": "https://kubernetes.default.svc",
            "authorization-mode": "Node,RBAC",
            "service-cluster-ip-range": SERVICE_CIDRS,
            "allow-privileged": "true",
            "kubelet-preferred-address-types": "InternalIP",
            "disable-admission-plugins": "ServiceAccount",  # it needs the controller-manager
            "event-ttl": "1h",
            "shutdown-delay-duration": "0s",
            "v": "1",
            **self.flags,
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    def run_apiserver(self, release: str) -> None:
        """Starts kube-apiserver, in the place of the one that runs, on what that one has stored; returns once it is ready."""
        if "kube-apiserver" in self.daemons:
            self.daemons.pop("kube-apiserver").kill()
        self.release = release
        self.daemon("kube-apiserver", "kube-apiserver", *self._apiserver_flags(), release=release)
        self.wait_ready()

    def daemon(self, name: str, *argv: str, netns: NetNs | None = None, release: str = NEWEST) -> Daemon:
        """Starts one of the built binaries in the control plane's namespace (or another)."""
        argv = (str(self.binaries.path(argv[0], release)), *argv[1:])
        daemon = Daemon(name, argv, self.folder / f"{name}.log", netns=netns or self.netns)
        self.daemons[name] = daemon
        return daemon

    def wait_ready(self, timeout: float = 240) -> None:
        def ready() -> bool:
            self.daemons["kube-apiserver"].check()
            return self.api().get("/readyz") == "ok" and bool(self.api().get("/api/v1/namespaces/default"))

        try:
            wait_for("the API server", ready, timeout)
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.daemons['kube-apiserver'].log_tail()}") from None

    def start_controllers(self) -> None:
        """kube-controller-manager (Deployments, DaemonSets, EndpointSlices, service accounts) and kube-scheduler."""
        self.daemon(
            "kube-controller-manager",
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig('system:kube-controller-manager')}",
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            f"--root-ca-file={self.ca}",
            "--leader-elect=false",
            "--allocate-node-cidrs=false",
            "--use-service-account-credentials",
            "--secure-port=0",
        )
        self.daemon(
            "kube-scheduler",
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig('system:kube-scheduler')}",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def api(self, user: str = "admin") -> Api:
        return Api(self.server, str(self.ca), self.tokens[user])

    def kubeconfig(self, user: str = "admin", *, namespace: str = "default", inside: bool = False) -> Path:
        """A kubeconfig file for a user; `inside` is for processes on the underlay, else for the test run."""
        server = f"https://{self.ip}:6443" if inside or user.startswith("system:") else self.server
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(self.ca)}}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
            "current-context": "test",
        }
        folder = Path(tempfile.mkdtemp(prefix="kubeconfig-", dir=self.folder))
        path = folder / "config"
        path.write_text(json.dumps(config))
        return path

    def join(self, node: NetNs) -> tuple[str, str]:
        """Puts a node's namespace on the underlay; gives its IPv4 and IPv6 address there (device eth0)."""
        self._joined += 1
        ip, ip6 = UNDERLAY4.format(self._joined), UNDERLAY6.format(self._joined)
        port = f"n{self._joined}"
        self.netns.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node.name)
        self.netns.ip("link", "set", port, "master", "underlay", "up")
        node.ip("link", "set", "eth0", "up")
        node.ip("address", "add", f"{ip}/24", "dev", "eth0")
        node.ip("address", "add", f"{ip6}/64", "dev", "eth0", "nodad")
        return ip, ip6

    def stop(self) -> None:
        for daemon in reversed(self.daemons.values()):
            daemon.kill()  # nothing here is worth a clean shutdown
        self.netns.delete()

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


urllib3.disable_warnings()
