"""A connection to a port inside a pod, through the API server's port-forward (a WebSocket).

RBAC decides who may open one (`create` on `pods/portforward`), the API server's audit log says who did, and nothing
listens on the node. The protocol is `v4.channel.k8s.io`: channel 0 carries the data, channel 1 an error text, and each
begins with the port's number (little endian, 16 bit).

The official library has a forwarder too; it reads without bound what its caller does not take, and its threads die of
protocol errors unseen. This one stops reading while the caller is busy, so that the agent, not this client, drops and
counts; it notices a silent peer by pings; and it keeps the reason for the end.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from typing import Any

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.dialling import DialPlaces
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import api_error, unreachable

_DATA, _ERROR = 0, 1
_DIAL_S = 15.0
# Dialled at a time: 1,000 handshakes at once would each take longer than one may.
_DIALLING = DialPlaces(32)
_CHUNK = 1 << 16
_MAX_WAITING = 1 << 20  # bytes taken from the pod that the caller has not read yet
_MAX_MESSAGE = 1 << 20  # bytes; API servers send 32 KB at most, in one frame
_PING_S = 15.0
_SILENT_S = 45.0


class ForwardedSocket(socket.socket):
    """The caller's end. When it reads the end of the stream, `reason` says why it ended ("" for an ordinary end)."""

    reason: str = ""


def dial_pod(client: KubeClient, namespace: str, pod: str, port: int) -> ForwardedSocket:
    """A connected socket to `port` on the pod's own loopback.

    Raises ApiError (403: no right to port-forward, 404: no such pod) and Unreachable. That nothing listens on the port
    shows as the end of the stream, with the kubelet's words in `reason`.
    """
    with _DIALLING.place():
        websocket = _open(client, namespace, pod, port)
    ours, theirs = socket.socketpair()
    caller = ForwardedSocket(fileno=theirs.detach())
    pump = _Pump(websocket, ours, caller)
    threading.Thread(target=pump.run, name=f"port-forward {namespace}/{pod}", daemon=True).start()
    return caller


def _open(client: KubeClient, namespace: str, pod: str, port: int) -> Any:
    import websocket
    from kubernetes.stream.ws_client import get_websocket_url, websocket_proxycare

    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    configuration = client.configuration
    url = get_websocket_url(client.server + path, [("ports", str(port))])
    headers = {**client.headers(), "sec-websocket-protocol": "v4.channel.k8s.io"}
    options: dict[str, Any] = {"header": [f"{name}: {value}" for name, value in headers.items()]}
    if configuration.proxy or configuration.proxy_headers:
        options = websocket_proxycare(options, configuration, url, headers)
    try:
        # Not the library's create_websocket, which reads the authorities' certificates for each connection: 16 ms of CPU
        # a node with a system's bundle.
        tls = {"context": client.tls, "server_hostname": configuration.tls_server_name}
        opened: Any = websocket.WebSocket(sslopt=tls if url.startswith("wss:") else {})
        opened.connect(url, timeout=_DIAL_S, **options)
        opened.settimeout(_SILENT_S)
        return opened
    except websocket.WebSocketBadStatusException as error:
        body = error.resp_body if isinstance(error.resp_body, bytes) else b""
        raise api_error(error.status_code, body, f"port-forward to pod {namespace}/{pod}") from None
    except (websocket.WebSocketTimeoutException, TimeoutError):
        raise unreachable(TimeoutError(), client.server) from None
    except (websocket.WebSocketException, OSError) as error:
        raise unreachable(error, client.server) from None


class _Pump:
    """Carries bytes between the WebSocket and the socket pair in one thread: OpenSSL connections are not for two."""

    def __init__(self, websocket: Any, local: socket.socket, caller: ForwardedSocket) -> None:
        self._websocket, self._local, self._caller = websocket, local, caller
        self._waiting = bytearray()
        self._begun = [False, False]  # per channel: the port's number has come
        self._heard = self._pinged = time.monotonic()
        self._local.setblocking(False)
        self._frames = websocket.frame_buffer
        self._read_length, self._frames.recv_length = self._frames.recv_length, self._bounded_length
        self._room = _MAX_MESSAGE

    def run(self) -> None:
        import websocket

        reason = ""
        try:
            while self._step():
                pass
        except websocket.WebSocketConnectionClosedException:
            pass  # the other side closed: an ordinary end
        except GenainetError as error:
            reason = error.message
        except (websocket.WebSocketException, OSError) as error:
            reason = f"the connection through the API server broke: {error}"
        finally:
            self._caller.reason = self._caller.reason or reason
            self._flush_and_close()

    def _step(self) -> bool:
        """One round; False when the caller has closed its end."""
        sock = self._websocket.sock
        reading = len(self._waiting) < _MAX_WAITING
        poll = select.poll()  # not select(): 200 nodes need descriptors beyond 1024
        poll.register(self._local, select.POLLIN | (select.POLLOUT if self._waiting else 0))
        if reading:
            poll.register(sock, select.POLLIN)
        buffered = reading and isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = dict(poll.poll(0 if buffered else int(1000 * min(_PING_S, 5))))
        if ready.get(self._local.fileno(), 0) & select.POLLOUT:
            del self._waiting[: self._local.send(self._waiting)]
        if ready.get(self._local.fileno(), 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
            data = self._local.recv(_CHUNK)
            if not data:
                return False
            self._websocket.send_binary(bytes((_DATA,)) + data)
        if buffered or ready.get(sock.fileno()):
            self._receive()
        elif reading:
            self._keep_alive()
        else:
            self._heard = time.monotonic()  # the silence is ours: we don't read
        return True

    def _bounded_length(self) -> None:
        """Reads how long a frame is; the library would take in one of any length, and a message of frames without end."""
        self._read_length()
        self._room -= self._frames.length
        if self._room < 0:
            raise GenainetError(f"the API server sent a message of more than {_MAX_MESSAGE:,} bytes")

    def _receive(self) -> None:
        from websocket import ABNF

        self._heard, self._room = time.monotonic(), _MAX_MESSAGE
        opcode, frame = self._websocket.recv_data_frame(True)
        if opcode == ABNF.OPCODE_CLOSE:
            from websocket import WebSocketConnectionClosedException

            raise WebSocketConnectionClosedException("closed")
        if opcode != ABNF.OPCODE_BINARY or not frame.data:
            return
        channel, data = frame.data[0], frame.data[1:]
        if channel not in (_DATA, _ERROR):
            raise GenainetError(f"the API server sent channel {channel}, which port-forward does not have")
        if not self._begun[channel]:
            self._begun[channel] = True
            data = data[2:]
        if channel == _DATA:
            self._waiting += data
        elif data:
            raise GenainetError(data.decode("utf-8", "replace").strip())

    def _keep_alive(self) -> None:
        """Pings keep load balancers from cutting an idle stream, and tell a dead node from a quiet one."""
        now = time.monotonic()
        if now - self._heard > _SILENT_S:
            raise GenainetError(f"nothing came from the node for {_SILENT_S:.0f} s, not even an answer to a ping")
        if now - max(self._heard, self._pinged) > _PING_S:
            self._pinged = now
            self._websocket.ping()

    def _flush_and_close(self) -> None:
        """Gives the caller what has come before the end, then the end."""
        try:
            self._local.settimeout(_SILENT_S)
            self._local.sendall(self._waiting)
        except OSError:
            pass  # the caller is gone
        finally:
            self._local.close()
            sock = self._websocket.sock
            if sock is not None:
                sock.close()  # without the closing handshake, which waits for a peer that may be dead
