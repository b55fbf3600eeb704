"""Runs inside the machine, before its tests: compiles each probe that the agents' cache lacks, in the settings that they use.

A compiler that is emulated takes a minute for a probe, which no test waits for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))
import msgspec

from kubectl_genainet.agent.bpf import loader
from kubectl_genainet.agent.bpf.headers import KernelFacts, kernel_facts
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.serve.limits import Budget
from tests.kernel.kerneltest import SMALL_RING, cache_folder


def settings() -> Iterator[tuple[str, Budget, bool]]:
    """(Probe, budget, whether with typed loads where the kernel has them)."""
    for name in PROBES:
        yield name, Budget(), True
        yield name, Budget(), False
    yield "packet", SMALL_RING, True


def without_typed_loads(*args: object) -> KernelFacts:
    return msgspec.structs.replace(kernel_facts(*args), typed_cast=0)  # type: ignore[arg-type]


def main() -> None:
    wanted = list(settings())
    for number, (name, budget, typed) in enumerate(wanted, 1):
        started, compiled = time.monotonic(), list[str]()
        with mock.patch.object(loader, "kernel_facts", kernel_facts if typed else without_typed_loads):

            def say(name: str = name, number: int = number, compiled: list[str] = compiled) -> None:
                compiled.append(name)
                print(f"compiling the probe {name} ({number} of {len(wanted)})", flush=True)

            LoadedProbe(PROBES[name], "node", cache_folder(), budget=budget, compiling=say).close()
        if compiled:
            print(f"compiled in {time.monotonic() - started:.0f} s", flush=True)
    print(f"the probes are compiled: {len(list(cache_folder().glob('*.image')))} images", flush=True)


if __name__ == "__main__":
    main()
