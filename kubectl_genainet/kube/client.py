"""The client to the API server: kubeconfig and credentials from the official library, requests as raw JSON.

The official library's models are left out on purpose: 20,000 pods as its objects take minutes and gigabytes, and every
analysis works on the API's own JSON anyway.
"""

from __future__ import annotations

import math
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3

from kubectl_genainet.deadline import in_time
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.failures import api_error, decoded_answer, overdue, unreachable
from kubectl_genainet.kube.kubeconfig import context_of, kubeconfig_paths, load, namespace_of, read_kubeconfig
from kubectl_genainet.model.user import NOBODY_ELSE, Impersonation

T = TypeVar("T")
FIELD_MANAGER = "kubectl-genainet"
# An answer may take as long as it likes between two reads, up to the time-out; all of it may take this, or the time-out.
WHOLE_ANSWER_S = 120.0
MAX_ANSWER = 512 << 20  # bytes, unpacked; a page of 500 objects of 1 MiB each
MAX_LINE = 16 << 20  # of a watch: one object
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# What reading an answer may raise. ValueError: a chunk of less than no bytes.
_BROKEN = (urllib3.exceptions.HTTPError, OSError, ValueError)
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
        begun: float | None = None,
    ) -> None:
        """`within_s` counts from `begun` (time.monotonic()), or from now."""
        from kubernetes.client.rest import RESTClientObject

        self.configuration, self.namespace = configuration, namespace
        self._user = user
        self.server = str(configuration.host).rstrip("/")
        self._timeout = urllib3.Timeout(connect=min(10.0, timeout_s), read=timeout_s)
        self._within_s, self._until = within_s, (time.monotonic() if begun is None else begun) + within_s
        configuration.connection_pool_maxsize = 16
        self._pool = RESTClientObject(configuration).pool_manager

    @property
    def left_s(self) -> float:
        """Of the time for all that the client is asked."""
        return max(0.0, self._until - time.monotonic())

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
        accept: str = "application/json",
        doing: str = "",
    ) -> bytes:
        """The body of the answer. Raises ApiError for a status above 299 and Unreachable where there is no answer.

        `path` begins with /api or /apis; `doing` says in errors what was attempted ("list pods").
        """
        headers = self._headers(body, content_type, packed=True)
        headers["Accept"] = accept
        url = self._url(path, query)

        def whole(tries: int = 2 if method == "GET" else 1) -> tuple[int, bytes]:
            answer = self._send(method, url, body, headers, timeout=self._timeout, retries=_RETRY)
            try:
                return answer.status, self._read(answer, path)
            except _BROKEN as error:
                answer.close()  # a half-read connection can't be used again
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
            answer.close()

    def _split(self, answer: Any) -> Iterator[bytes]:
        parts: list[bytes] = []  # of a line that is not whole yet: joined once, however small they are
        size = 0
        try:
            for chunk in answer.stream(1 << 16, decode_content=True):
                first, *others = chunk.split(b"\n")
                parts.append(first)
                size += len(first)
                if others:
                    yield from (line for line in (b"".join(parts), *others[:-1]) if line)
                    parts, size = [others[-1]], len(others[-1])
                if size > MAX_LINE:
                    raise GenainetError(f"{self.server} sent an object of more than {MAX_LINE >> 20} MiB")
        except _BROKEN as error:
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
        whole_s = max(WHOLE_ANSWER_S, float(self._timeout.read_timeout or 0))
        try:
            return in_time(work, min(whole_s, self.left_s), name="api-request")
        except TimeoutError:
            raise overdue(self.server, min(whole_s, self._within_s)) from None

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
        except _BROKEN as error:
            raise unreachable(error, self.server) from None


def connect(
    *,
    context: str = "",
    kubeconfig: str = "",
    timeout_s: float = 30.0,
    user: Impersonation = NOBODY_ELSE,
    within_s: float = math.inf,
    may_ask: bool = True,
) -> KubeClient:
    """A client for a context of the kubeconfig (default: the current one), or for the cluster this process runs in.
    `timeout_s` is the longest silence, `within_s` the time for all that the client is asked, and for the credential plugin,
    which may ask somebody at the terminal (`may_ask`).

    Nothing is sent yet, except by a credential plugin. Raises GenainetError for a kubeconfig that is missing, damaged
    or without that context, and for a plugin that fails or does not end.
    """
    from kubernetes.client import Configuration

    begun, configuration = time.monotonic(), Configuration()
    if _in_cluster(context, kubeconfig):
        from kubernetes.config import load_incluster_config

        load_incluster_config(client_configuration=configuration)
        return KubeClient(configuration, context_namespace(), timeout_s, user, within_s)
    content = read_kubeconfig(kubeconfig)
    entry = context_of(content, context)
    load(configuration, content, entry["name"], within_s=within_s, may_ask=may_ask)
    return KubeClient(configuration, namespace_of(entry), timeout_s, user, within_s, begun)


def context_namespace(*, context: str = "", kubeconfig: str = "") -> str:
    """The namespace that a context of the kubeconfig names; "default" where it names none. Reads files only."""
    if _in_cluster(context, kubeconfig):
        return (_SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
    return namespace_of(context_of(read_kubeconfig(kubeconfig), context))


def context_names(*, kubeconfig: str = "") -> list[str]:
    """The contexts of the kubeconfig, in its order. Reads files only."""
    return [str(c["name"]) for c in read_kubeconfig(kubeconfig).contexts]


def _in_cluster(context: str, kubeconfig: str) -> bool:
    """As kubectl: inside a pod, and no kubeconfig to be found."""
    if context or kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return False
    return (_SERVICE_ACCOUNT / "token").exists() and not any(p.exists() for p in kubeconfig_paths(""))
