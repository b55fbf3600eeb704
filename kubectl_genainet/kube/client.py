"""The client to the API server: kubeconfig and credentials from the official library, requests as raw JSON.

The official library's models are left out on purpose: 20,000 pods as its objects take minutes and gigabytes, and every
analysis works on the API's own JSON anyway.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import msgspec
import urllib3

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.failures import api_error, decoded_answer, overdue, unreachable
from kubectl_genainet.model.user import NOBODY_ELSE, Impersonation

T = TypeVar("T")
FIELD_MANAGER = "kubectl-genainet"
# An answer may take as long as it likes between two reads, up to the time-out; all of it may take this, or the time-out.
WHOLE_ANSWER_S = 120.0
MAX_ANSWER = 512 << 20  # bytes, unpacked; a page of 500 objects of 1 MiB each
MAX_LINE = 16 << 20  # of a watch: one object
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_RETRY = urllib3.Retry(
    total=3,
    connect=0,
    read=1,
    other=0,
    status=3,
    backoff_factor=0.3,
    status_forcelist=(429, 502, 503, 504),
    allowed_methods={"GET"},
    raise_on_status=False,
)


class KubeClient:
    """Requests to one API server as one user. Every failure is a GenainetError with what to do. Thread-safe."""

    _user: Impersonation = NOBODY_ELSE
    _within_s, _until = math.inf, math.inf

    def __init__(
        self,
        configuration: Any,
        namespace: str = "default",
        timeout_s: float = 30.0,
        user: Impersonation = NOBODY_ELSE,
        within_s: float = math.inf,
    ) -> None:
        from kubernetes.client.rest import RESTClientObject

        self.configuration, self.namespace = configuration, namespace
        self._user = user
        self.server = str(configuration.host).rstrip("/")
        self._timeout = urllib3.Timeout(connect=min(10.0, timeout_s), read=timeout_s)
        self._within_s, self._until = within_s, time.monotonic() + within_s
        configuration.connection_pool_maxsize = 16
        self._pool = RESTClientObject(configuration).pool_manager

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Whom to trust, and the user's certificate, for connections that are not requests. Raises OSError where a file of it
        can't be read."""
        import certifi

        configuration = self.configuration
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = bool(configuration.verify_ssl) and configuration.assert_hostname is not False
        if configuration.verify_ssl:
            context.load_verify_locations(configuration.ssl_ca_cert or certifi.where())
        else:
            context.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        return context

    def headers(self) -> dict[str, str]:
        """The headers that authenticate a request; asks the credential plugin again when a token has expired."""
        settings = self.configuration.auth_settings().values()
        credentials = {s["key"]: s["value"] for s in settings if s["in"] == "header" and s["value"]}
        return credentials | ({"Impersonate-User": self._user.name} if self._user.name else {})

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        doing: str = "",
    ) -> bytes:
        """The body of the answer. Raises ApiError for a status above 299 and Unreachable where there is no answer.

        `path` begins with /api or /apis; `doing` says in errors what was attempted ("list pods").
        """
        headers = self._headers(body, content_type, packed=True)
        url = self._url(path, query)

        def whole(tries: int = 2 if method == "GET" else 1) -> tuple[int, bytes]:
            answer = self._send(method, url, body, headers, timeout=self._timeout, retries=_RETRY)
            try:
                return answer.status, self._read(answer, path)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if tries > 1:  # it broke off
                    return whole(tries - 1)
                raise unreachable(error, self.server) from None

        status, text = self._in_time(whole)
        if status > 299:
            raise api_error(status, text, doing or f"{method} {path}")
        return text

    def json(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """As `request`, with the answer decoded."""
        text = self.request(method, path, body, **options)
        return decoded_answer(text, Any, options.get("doing") or f"{method} {path}")

    def get(self, path: str, **query: str) -> Any:
        return self.json("GET", path, query=query)

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str], *, read_timeout_s: float, doing: str = "") -> Iterator[Any]:
        """An open watch: a context manager that gives an iterator of lines as they come."""
        timeout = urllib3.Timeout(connect=10.0, read=read_timeout_s)
        headers = self._headers(None, "application/json", packed=False)
        answer = self._send("GET", self._url(path, query), None, headers, timeout=timeout, retries=False)
        try:
            if answer.status > 299:
                raise api_error(answer.status, self._read(answer, path), doing or f"watch {path}")
            yield self._split(answer)
        finally:
            answer.close()  # a half-read connection can't be used again

    def _split(self, answer: Any) -> Iterator[bytes]:
        partial_line = b""
        try:
            for chunk in answer.stream(1 << 16, decode_content=True):
                *whole, partial_line = (partial_line + chunk).split(b"\n")
                if len(partial_line) > MAX_LINE:
                    raise GenainetError(f"{self.server} sent an object of more than {MAX_LINE >> 20} MiB")
                yield from (line for line in whole if line)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(error, self.server) from None

    def _read(self, answer: Any, path: str) -> bytes:
        """The body, unpacked piece by piece: a small packed one may be a large one."""
        parts, size = [], 0
        for part in answer.stream(1 << 20, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER:
                answer.close()
                raise GenainetError(f"{self.server} answered {path} with more than {MAX_ANSWER >> 20} MiB")
        return b"".join(parts)

    def _in_time(self, work: Callable[[], T]) -> T:
        """What `work` returns, within the time that a whole answer, and all answers together, may take; else Unreachable, and
        its thread is left."""
        outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def attempt() -> None:
            try:
                outcome.put((work(), None))
            except BaseException as error:
                outcome.put((None, error))

        threading.Thread(target=attempt, daemon=True, name="api-request").start()
        whole_s = max(WHOLE_ANSWER_S, float(self._timeout.read_timeout or 0))
        try:
            result, error = outcome.get(timeout=max(0.0, min(whole_s, self._until - time.monotonic())))
        except queue.Empty:
            raise overdue(self.server, min(whole_s, self._within_s)) from None
        if error is not None:
            raise error
        return cast("T", result)

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return self.server + path + ("?" + urlencode(query) if query else "")

    def _headers(self, body: Any, content_type: str, *, packed: bool) -> urllib3.HTTPHeaderDict:
        headers = urllib3.HTTPHeaderDict({**self.headers(), "Accept": "application/json", "User-Agent": FIELD_MANAGER})
        for group in self._user.groups:
            headers.add("Impersonate-Group", group)
        if packed:
            headers["Accept-Encoding"] = "gzip"
        if body is not None:
            headers["Content-Type"] = content_type
        return headers

    def _send(self, method: str, url: str, body: Any, headers: Any, *, timeout: urllib3.Timeout, retries: Any) -> Any:
        """The answer, of which the body is not read yet."""
        try:
            return self._pool.request(
                method,
                url,
                body=None if body is None else msgspec.json.encode(body),
                headers=headers,
                timeout=timeout,
                preload_content=False,
                retries=retries,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(error, self.server) from None


def connect(
    *,
    context: str = "",
    kubeconfig: str = "",
    timeout_s: float = 30.0,
    user: Impersonation = NOBODY_ELSE,
    within_s: float = math.inf,
) -> KubeClient:
    """A client for a context of the kubeconfig (default: the current one), or for the cluster this process runs in.
    `timeout_s` is the longest silence, `within_s` the time for all that the client is asked.

    Nothing is sent yet, except by a credential plugin. Raises GenainetError for a kubeconfig that is missing, damaged
    or without that context, and for a plugin that fails.
    """
    from kubernetes.client import Configuration

    configuration = Configuration()
    if _in_cluster(context, kubeconfig):
        from kubernetes.config import load_incluster_config

        load_incluster_config(client_configuration=configuration)
        return KubeClient(configuration, context_namespace(), timeout_s, user, within_s)
    content = _read_kubeconfig(kubeconfig)
    entry = _context(content, context)
    _load(configuration, content, entry["name"])
    return KubeClient(configuration, _namespace_of(entry), timeout_s, user, within_s)


def context_namespace(*, context: str = "", kubeconfig: str = "") -> str:
    """The namespace that a context of the kubeconfig names; "default" where it names none. Reads files only."""
    if _in_cluster(context, kubeconfig):
        return (_SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
    return _namespace_of(_context(_read_kubeconfig(kubeconfig), context))


def context_names(*, kubeconfig: str = "") -> list[str]:
    """The contexts of the kubeconfig, in its order. Reads files only."""
    return [str(c["name"]) for c in _read_kubeconfig(kubeconfig).contexts]


def _in_cluster(context: str, kubeconfig: str) -> bool:
    """As kubectl: inside a pod, and no kubeconfig to be found."""
    if context or kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return False
    return (_SERVICE_ACCOUNT / "token").exists() and not any(p.exists() for p in _kubeconfig_paths(""))


def _kubeconfig_paths(kubeconfig: str) -> list[Path]:
    """--kubeconfig, else $KUBECONFIG (a list), else ~/.kube/config."""
    if kubeconfig:
        return [Path(kubeconfig)]
    listed = [p for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return [Path(p).expanduser() for p in listed] or [Path.home() / ".kube" / "config"]


class _Kubeconfig(msgspec.Struct, frozen=True):
    """The merged kubeconfig as the official library keeps it, and the files it came from."""

    node: Any
    contexts: tuple[dict[str, Any], ...]
    current: str
    files: tuple[Path, ...]


def _read_kubeconfig(kubeconfig: str) -> _Kubeconfig:
    import yaml  # the agent's image has none, and no kubeconfig
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KubeConfigMerger

    from kubectl_genainet.kube.yaml_text import parse_text

    paths = _kubeconfig_paths(kubeconfig)
    files = tuple(p for p in paths if p.is_file())
    if not files:
        raise GenainetError(
            f"there is no kubeconfig: {', '.join(map(str, paths))} {'does' if len(paths) == 1 else 'do'} not exist",
            "Give --kubeconfig FILE or set KUBECONFIG; --lab, --manifests and --from work without a cluster.",
        )
    for file in files:  # the library reads whatever depth and however many aliases
        try:
            parse_text(str(file), file.read_text(errors="replace"), lambda _: None)
        except OSError as error:
            raise GenainetError(f"the kubeconfig {file} can't be read: {error.strerror}") from None
    try:
        node = KubeConfigMerger(os.pathsep.join(map(str, files))).config
        content = node.value
        listed = [getattr(c, "value", c) for c in content.get("contexts") or ()]
        contexts = tuple(c for c in listed if isinstance(c, dict) and c.get("name"))
        return _Kubeconfig(node, contexts, str(content.get("current-context") or ""), files)
    except (ConfigException, yaml.YAMLError, AttributeError, TypeError, OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise GenainetError(f"the kubeconfig {files[0]} can't be read: {problem}") from None


def _context(content: _Kubeconfig, context: str) -> dict[str, Any]:
    name = context or content.current
    if not name:
        raise GenainetError(
            f"the kubeconfig {content.files[0]} sets no current context",
            "Choose one with --context or `kubectl config use-context NAME`.",
        )
    for entry in content.contexts:
        if entry["name"] == name:
            return entry
    from kubectl_genainet.model.target import not_found

    raise not_found("context", name, [c["name"] for c in content.contexts])


def _namespace_of(entry: Mapping[str, Any]) -> str:
    return str((entry.get("context") or {}).get("namespace") or "default")


def _load(configuration: Any, content: _Kubeconfig, context: str) -> None:
    """Fills `configuration` with server, certificates and credentials; runs the credential plugin if there is one."""
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KubeConfigLoader

    logged = _Messages()
    root = logging.getLogger()
    root.addHandler(logged)  # the library logs a failing plugin and goes on without credentials
    try:
        loader = KubeConfigLoader(content.node, context, config_base_path=None)
        loader.load_and_set(configuration)
    except (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise GenainetError(f"the kubeconfig's context {context!r} can't be used: {error}") from None
    finally:
        root.removeHandler(logged)
    if logged.texts:
        raise _plugin_failed(content, context, logged.texts[-1])


def _plugin_failed(content: _Kubeconfig, context: str, text: str) -> GenainetError:
    user = next((c["context"].get("user") for c in content.contexts if c["name"] == context), "")
    users = [getattr(u, "value", u) for u in content.node.value.get("users") or ()]
    command = next(
        (u["user"]["exec"].get("command", "") for u in users if u["name"] == user and "exec" in u["user"]), ""
    )
    if command and not shutil.which(command):
        hint = f"{command} is not on PATH: install it; it is what your kubeconfig uses to log in."
    else:
        hint = f"Run it by hand, or log in again: the kubeconfig's user {user!r} gets its credentials from it."
    return GenainetError(f"the credential plugin {command or user} failed: {text}", hint)


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
