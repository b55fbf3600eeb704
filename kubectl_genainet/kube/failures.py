"""What went wrong between this client and the API server, in words, with what to do about it."""

from __future__ import annotations

import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import msgspec
import urllib3.exceptions as http

from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.kube.nesting import MAX_DEPTH, without_deep_values

_DEEPEST = MAX_DEPTH + 10  # of an answer: its objects are members of a list or of an event


class ApiError(GenainetError):
    """The API server answered with an error. `status` is the HTTP status, `reason` the API's own ("NotFound", …)."""

    def __init__(self, message: str, hint: str, status: int, reason: str, retry_after: str = "") -> None:
        super().__init__(message, hint)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class Unreachable(GenainetError):
    """No answer from the API server: refused, timed out, certificate not accepted, …"""


class _Cause(msgspec.Struct, frozen=True):
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct, frozen=True):
    causes: tuple[_Cause, ...] | None = None


class _Status(msgspec.Struct, frozen=True):
    message: str | None = None
    reason: str | None = None
    details: _Details | None = None


def api_error(status: int, body: bytes, doing: str) -> ApiError:
    """The error for an answer above 299. `doing` says what was attempted ("list pods")."""
    try:
        answer = msgspec.json.decode(body, type=_Status)
    except DECODE_ERRORS:
        answer = _Status()
    text = answer.message or body[:300].decode("utf-8", "replace").strip() or f"HTTP status {status}"
    return ApiError(f"can't {doing}: {text}", _hint(status, text), status, answer.reason or "")


def decoded_answer(text: bytes, shape: Any, doing: str) -> Any:
    """An answer of the API server as `shape`; what nests deeper than MAX_DEPTH levels within its objects has TOO_DEEP in its
    place. Raises GenainetError for an answer that is something else. `doing` as above."""
    try:
        try:
            return msgspec.json.decode(text, type=shape)
        except RecursionError:
            return msgspec.json.decode(without_deep_values(text, _DEEPEST), type=shape)
    except DECODE_ERRORS as error:
        raise GenainetError(
            f"can't {doing}: the answer is not JSON of the Kubernetes API: {error}",
            "Is this address a Kubernetes API server? A log-in page of a proxy looks like this.",
        ) from None


def _hint(status: int, text: str) -> str:
    match status:
        case 401:
            return "The API server doesn't accept these credentials: log in again, or choose another --context."
        case 403 if "system:anonymous" in text:
            return "The kubeconfig gives no credentials for this context, so the API server saw an anonymous user."
        case 403 if "impersonate" in text:
            return "--as and --as-group need the right to impersonate that user and these groups: ask for it, or leave them out."
        case 403:
            return _role_hint(text)
        case 429:
            return "The API server is overloaded or limits this client; try again in a moment."
        case 500 | 502 | 503 | 504:
            return "The API server, or a proxy before it, has trouble; try again, and look at its logs."
    return ""


def _role_hint(refusal: str) -> str:
    """Which of the roles of docs/security.md may do what was refused."""
    if "pods/portforward" in refusal:
        return "Ask for the ClusterRole genainet-trace in the agents' namespace (docs/security.md)."
    if any(f"cannot {verb} resource" in refusal for verb in ("create", "update", "patch", "delete")):
        return "Ask for the ClusterRole genainet-admin (docs/security.md)."
    return "Ask for the ClusterRole genainet-view, or genainet-admin to deploy and undeploy (docs/security.md)."


def unreachable(error: Exception, server: str) -> GenainetError:
    """The error for a request that got no answer. `error` is urllib3's, ssl's or the system's."""
    where = f"the API server {server}"
    cause = _innermost(error)
    text = str(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Unreachable(
            f"the certificate of {where} is not accepted: {cause.verify_message}", _certificate_hint(text)
        )
    if isinstance(cause, ssl.SSLError):
        if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
            return Unreachable(
                f"{where} doesn't speak TLS on that port", "Is the server's address in the kubeconfig right?"
            )
        if "CERTIFICATE" in text or "UNKNOWN_CA" in text:
            return Unreachable(
                f"{where} refused the client certificate: {cause.reason}", "It may have expired: renew it."
            )
        return Unreachable(f"TLS to {where} failed: {text}")
    if isinstance(error, http.ProxyError) or "proxy" in type(cause).__name__.lower():
        return Unreachable(
            f"the proxy on the way to {where} failed: {text}", "Look at HTTPS_PROXY, NO_PROXY and proxy-url."
        )
    if isinstance(cause, ConnectionRefusedError):
        return Unreachable(
            f"{where} refused the connection",
            "Is the cluster up, and is this the right --context? `kubectl cluster-info` says.",
        )
    if isinstance(cause, (socket.gaierror, http.NameResolutionError)):
        return Unreachable(
            f"the name {urlsplit(server).hostname} can't be resolved", "Are you on the cluster's network or VPN?"
        )
    if isinstance(cause, (http.TimeoutError, TimeoutError)):
        return Unreachable(
            f"{where} didn't answer in time", "Are you on the cluster's network or VPN? Is a firewall between?"
        )
    return Unreachable(f"the connection to {where} failed: {text or type(cause).__name__}")


def overdue(server: str, within_s: float) -> GenainetError:
    """The error for answers that were not whole in time, however it was spent."""
    return Unreachable(
        f"the API server {server} has not answered in full within {within_s:g} s",
        "It, or something on the way, is slow: does `kubectl get --raw /version` answer at once?",
    )


def _certificate_hint(text: str) -> str:
    if "expired" in text:
        return "Renew the API server's certificate, and look at this machine's clock."
    if "Hostname mismatch" in text or "IP address mismatch" in text:
        return "The kubeconfig's server is not a name in the certificate: correct it, or set tls-server-name."
    return "The kubeconfig's certificate-authority is not the one that signed it: fetch the kubeconfig anew."


def _innermost(error: Exception) -> Exception:
    """urllib3 wraps: MaxRetryError(reason=SSLError(SSLCertVerificationError)), NewConnectionError from OSError."""
    current: Exception = error
    for _ in range(6):
        wrapped = (getattr(current, "reason", None), current.__cause__, *reversed(current.args))
        inner = next((w for w in wrapped if isinstance(w, Exception)), None)
        if inner is None:
            break
        current = inner
    return current
