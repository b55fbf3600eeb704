"""Reading 20,000 pods: `kube.snapshot` beside the official library's models, from the same local server.

The server answers pages that were encoded before, so that what is measured is the client.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PODS, PAGE = 20_000, 500


def pod(number: int) -> dict[str, object]:
    """About what a kubelet and a Deployment make of a pod: 4 kB, with the API's nulls and managedFields."""
    name = f"my-llama-finetuned-7d9c6b5f4-{number:05d}"
    container = {
        "name": "model",
        "image": "registry.example/llama:1",
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": f"OPTION_{i}", "value": "x" * 20} for i in range(10)],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "terminationMessagePath": "/dev/termination-log",
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    }
    conditions = [
        {"type": t, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for t in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    return {
        "metadata": {
            "name": name,
            "namespace": f"ns-{number % 50}",
            "uid": f"{number:08d}-0000-0000-0000-000000000000",
            "resourceVersion": str(number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": "my-llama-finetuned", "pod-template-hash": "7d9c6b5f4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "my-llama", "uid": "u"}],
            "managedFields": [
                {
                    "manager": m,
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": "2026-01-01T00:00:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {f"f:{i}": {} for i in range(40)},
                }
                for m in ("kcm", "kubelet")
            ],
        },
        "spec": {"nodeName": f"node-{number % 200}", "containers": [container], "serviceAccountName": "default"},
        "status": {
            "phase": "Running",
            "podIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            "hostIP": "10.0.0.1",
            "conditions": conditions,
            "containerStatuses": [{"name": "model", "ready": True, "restartCount": 0, "image": "i", "imageID": "i"}],
        },
    }


def make_pages() -> dict[str, bytes]:
    """The pages of the pods' list, by continue token."""
    pages = {}
    for start in range(0, PODS, PAGE):
        following = str(start + PAGE) if start + PAGE < PODS else ""
        items = [pod(number) for number in range(start, start + PAGE)]
        meta = {"resourceVersion": "1", "continue": following}
        page = {"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": items}
        pages[str(start) if start else ""] = json.dumps(page).encode()
    return pages


def serve(pages: dict[str, bytes], report: Callable[[int], None]) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            token = parse_qs(url.query).get("continue", [""])[0]
            body = pages[token] if url.path == "/api/v1/pods" else b'{"groups": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    report(server.server_port)


def ours(config: str) -> int:
    from kubectl_genainet.kube.client import connect
    from kubectl_genainet.kube.resources import POD
    from kubectl_genainet.kube.snapshot import read_listings

    return len(read_listings(connect(kubeconfig=config), kinds=[POD])[0].pods)


def library(config: str) -> int:
    from kubernetes import client
    from kubernetes import config as kubeconfig

    api = client.CoreV1Api(kubeconfig.new_client_from_config(config))
    pods, token = [], None
    while True:
        page = api.list_pod_for_all_namespaces(limit=PAGE, _continue=token)
        pods += page.items
        token = page.metadata._continue
        if not token:
            return len(pods)


def measure(name: str, config: str, results: multiprocessing.Queue[tuple[float, int, int]]) -> None:
    started = time.monotonic()
    found = {"ours": ours, "library": library}[name](config)
    results.put((time.monotonic() - started, found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


def main() -> None:
    """Prints seconds and peak memory of both, each in a process of its own."""
    pages = make_pages()
    size = sum(map(len, pages.values())) / PODS / 1000
    ports: list[int] = []
    serve(pages, ports.append)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{ports[0]}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        path = Path(folder, "config")
        path.write_text(json.dumps(config))
        figures = {}
        for name in ("ours", "library"):
            results: multiprocessing.Queue[tuple[float, int, int]] = context.Queue()
            process = context.Process(target=measure, args=(name, str(path), results))
            process.start()
            figures[name] = results.get()
            process.join()
    for name, (seconds, found, memory) in figures.items():
        print(f"snapshot: {name:8} {found} pods of {size:.1f} kB in {seconds:.2f} s, peak {memory} MB")
    print(f"snapshot: library / ours = {figures['library'][0] / figures['ours'][0]:.1f} in time")


if __name__ == "__main__":
    main()
