"""The credential plugin of a kubeconfig's user (`exec`), as client-go runs it, but not for ever.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS, GenainetError

PLUGIN_S = 60.0  # where nobody can answer it
LOGIN_S = 300.0  # at a terminal: somebody may be logging in
MOST_OUTPUT = 1 << 20  # bytes
RENEWED_S = 60.0  # before credentials expire
_LOOK_S = 0.2  # whether it has ended while something that it left behind holds its output


class EnvironmentVariable(msgspec.Struct, frozen=True):
    name: str
    value: str


class PluginSettings(msgspec.Struct, frozen=True, rename="camel"):
    """A user's `exec` in a kubeconfig."""

    api_version: str
    command: str
    args: tuple[str, ...] | None = None
    env: tuple[EnvironmentVariable, ...] | None = None
    interactive_mode: Literal["Never", "IfAvailable", "Always"] | None = None
    provide_cluster_info: bool = False


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: str = ""

    @property
    def is_complete(self) -> bool:
        return bool(self.token or (self.client_certificate_data and self.client_key_data))


class _ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    status: _Status


@dataclass(frozen=True, slots=True)
class Credential:
    """A bearer token, or a certificate with its key (PEM); `until` (seconds since 1970; None: always) is when it expires."""

    token: str
    certificate: str
    key: str
    until: float | None

    @property
    def is_stale(self) -> bool:
        return self.until is not None and time.time() > self.until - RENEWED_S


@dataclass(frozen=True, slots=True)
class CredentialPlugin:
    """`settings` is the user's `exec`, `folder` where the kubeconfig is, `cluster` what the kubeconfig says of the cluster."""

    user: str
    settings: PluginSettings
    folder: str
    cluster: Mapping[str, Any]

    @property
    def command(self) -> str:
        """A path is relative to the kubeconfig, a mere name is searched for on PATH."""
        command = self.settings.command
        return os.path.join(self.folder, command) if os.sep in command else command

    def ask(self, within_s: float, *, at_terminal: bool) -> Credential:
        """Raises GenainetError, which names the plugin, for one that fails, says nothing of use, or has not ended in time.

        Where it may ask somebody (`at_terminal`, and its interactiveMode), standard input and error are the terminal's, and it
        has more time. Else it reads nothing, and its words are in the error.
        """
        mode = self.settings.interactive_mode
        if mode == "Always" and not at_terminal:
            raise self._failed("it asks for something (interactiveMode: Always), and there is no terminal")
        asks = at_terminal and mode != "Never"
        limit_s = min(LOGIN_S if asks else PLUGIN_S, within_s)
        try:
            status, output, complaint = _run(
                [self.command, *(self.settings.args or ())],
                self._environment(asks),
                limit_s,
                stdin=None if asks else subprocess.DEVNULL,
                stderr=None if asks else subprocess.PIPE,
            )
        except TimeoutError as error:
            said = f"; it said: {error}" if str(error) else ""
            raise self._failed(f"it has not answered within {limit_s:g} s{said}") from None
        except (OSError, ValueError) as error:  # ValueError: a null character in what it is started with
            raise self._failed(getattr(error, "strerror", None) or str(error)) from None
        if status:
            raise self._failed(f"it ended with status {status}" + (f": {complaint}" if complaint else ""))
        return self.credential_of(output)

    def credential_of(self, output: bytes) -> Credential:
        """What it printed. Raises GenainetError for anything else than credentials."""
        try:
            answer = msgspec.json.decode(output, type=_ExecCredential)
            status = answer.status
            until = datetime.fromisoformat(status.expiration_timestamp) if status.expiration_timestamp else None
        except (*DECODE_ERRORS, ValueError) as error:
            raise self._failed(f"what it printed is no ExecCredential: {error}") from None
        expected = self.settings.api_version
        if answer.kind != "ExecCredential" or answer.api_version != expected:
            raise self._failed(f"it answered with a {answer.kind} of {answer.api_version}, not one of {expected}")
        if not status.is_complete:
            raise self._failed("it printed neither a token nor a certificate with its key")
        expires = until.timestamp() if until is not None else None
        return Credential(status.token, status.client_certificate_data, status.client_key_data, expires)

    def _environment(self, asks: bool) -> dict[str, str]:
        spec: dict[str, Any] = {"interactive": asks}
        if self.settings.provide_cluster_info:
            spec["cluster"] = _cluster_info(self.cluster)
        info = {"apiVersion": self.settings.api_version, "kind": "ExecCredential", "spec": spec}
        own = {variable.name: variable.value for variable in self.settings.env or ()}
        return {**os.environ, **own, "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()}

    def _failed(self, why: str) -> GenainetError:
        command = self.settings.command
        if not shutil.which(self.command):
            hint = f"{command} is not on PATH: install it; it is what your kubeconfig uses to log in."
        else:
            hint = f"Run it by hand, or log in again: the kubeconfig's user {self.user!r} gets its credentials from it."
        return GenainetError(f"the credential plugin {command} failed: {why}", hint)


def is_terminal() -> bool:
    """Whether somebody can be asked for something."""
    return sys.stdin is not None and sys.stdin.isatty()


class RenewedCredential:
    """What the plugin gave last; it is asked again shortly before that expires. Thread-safe."""

    def __init__(self, plugin: CredentialPlugin, within_s: float, *, at_terminal: bool) -> None:
        self._plugin, self._at_terminal = plugin, at_terminal
        self._lock = threading.Lock()
        self._credential = plugin.ask(within_s, at_terminal=at_terminal)

    def now(self) -> Credential:
        with self._lock:
            if self._credential.is_stale:
                self._credential = self._plugin.ask(PLUGIN_S, at_terminal=self._at_terminal)
            return self._credential


def _cluster_info(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """What provideClusterInfo gives a plugin, by the names of the kubeconfig, which are the API's."""
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
    told = {name: cluster[name] for name in names if name in cluster}
    extensions = cluster.get("extensions")
    for extension in extensions if isinstance(extensions, list) else ():
        if isinstance(extension, dict) and extension.get("name") == "client.authentication.k8s.io/exec":
            told["config"] = extension.get("extension")
    return told


def _run(
    command: Sequence[str], environment: dict[str, str], within_s: float, *, stdin: int | None, stderr: int | None
) -> tuple[int, bytes, str]:
    """(status, output, the last words of its errors). Raises OSError for what can't be run, and TimeoutError, with these words,
    for what has not ended in time. Whatever ends this ends the command, and its children."""
    deadline = time.monotonic() + within_s
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=environment) as process:
        output, errors = bytearray(), bytearray()
        try:
            _read(process, {process.stdout: output, process.stderr: errors}, deadline)
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TimeoutError(_words(bytes(errors))) from None
        finally:
            if process.poll() is None:
                _end(process)
    return status, bytes(output), _words(bytes(errors))


def _read(process: subprocess.Popen[bytes], pipes: Mapping[Any, bytearray], deadline: float) -> None:
    """Reads the pipes to their end, or to the process's: what it leaves behind may hold them. Raises TimeoutError, and OSError
    for more than anybody would say."""
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left_s = deadline - time.monotonic()
            has_ended = process.poll() is not None
            ready = selector.select(min(_LOOK_S, max(0.0, left_s)))
            if not ready and has_ended:
                return
            if left_s <= 0:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                pipes[key.fileobj].extend(data)
                if len(pipes[key.fileobj]) > MOST_OUTPUT:
                    raise OSError(f"it said more than {MOST_OUTPUT} bytes")


def _words(errors: bytes) -> str:
    return errors.decode(errors="replace").strip()[-1000:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, and what it started: a wrapper's child would hold the terminal, or wait for ever."""
    for pid in [*_descendants(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()


def _descendants(pid: int) -> list[int]:
    """Of the process, by what ps says; none where there is no ps."""
    try:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    children: dict[int, list[int]] = {}
    for line in listed.stdout.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, wanted = [], [pid]
    while wanted:
        wanted = [child for parent in wanted for child in children.get(parent, ())]
        found += wanted
    return found
