"""What a trace tells of faults that are made one after the other, beside what their clients got."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty

from kubectl_genainet.model.kube import Pod
from tests.lab.connections.faultbench import PORT, Bench, Done
from tests.lab.labtest import RunningLab
from tests.lab.tracetest import Record, RunningTrace, tracing


@dataclass
class Told:
    """What the faults' clients got, and the paths of their connections."""

    done: dict[str, Done]
    paths: dict[int, Record]

    def of(self, name: str) -> tuple[Done, list[Record]]:
        done = self.done[name]
        assert done.got.keys() <= self.paths.keys(), (name, done, sorted(self.paths))
        return done, [self.paths[port] for port in done.got]


def warmed_up(bench: Bench, trace: RunningTrace) -> None:
    deadline = time.monotonic() + 150  # probes take long to load beside other load
    while time.monotonic() < deadline:
        bench.call(Done(), bench.backend.ips[0], PORT)
        with contextlib.suppress(Empty):
            if trace._next(0.2) is not None:
                return
    raise AssertionError(trace.errors)


def tell(lab: RunningLab, faults: dict[str, Callable[[Bench], Done]], slow: tuple[str, ...] = ()) -> Told:
    """Makes the faults, those that are `slow` first: they go on beside the others."""

    def on(app: str, node: str) -> Pod:
        return next(p for p in lab.pods(app) if p.spec.node_name == node)

    with (
        contextlib.ExitStack() as until_the_end,
        tracing("--lab", lab.name, "-n", "default", "--timeout", "300s", "--slow", "0s") as trace,
    ):
        backend, open_pod = on("my-llama-finetuned", "node-3"), on("chatbot-ui", "node-3")
        bench = Bench(lab, on("chatbot-ui", "node-1"), backend, open_pod, until_the_end)
        warmed_up(bench, trace)
        order = sorted(faults, key=lambda name: slow.index(name) if name in slow else len(slow))
        done = {name: faults[name](bench) for name in order}
        for thread in bench.before_the_end:
            thread.join()
        time.sleep(1.5)  # beyond the time after which TCP would have sent the last SYN again
        trace.stop()
    return Told(done, {p["flow"]["client"]["port"]: p for p in trace.paths})


def one(told: Told, name: str) -> tuple[Done, Record]:
    done, (path,) = told.of(name)
    return done, path


def checks(path: Record) -> set[str]:
    return {finding["check"] for finding in path["findings"]}
