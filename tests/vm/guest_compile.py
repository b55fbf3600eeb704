"""Runs inside the machine, before its tests: compiles each probe that the agents' cache lacks, in the settings that they use.

A compiler that is emulated takes a minute for a probe, which no test waits for. What an agent's processes import is read here for
the first time, too: over 9p that takes as long.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))
from kubectl_genainet.agent.bpf import loader
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.agent.session import worker  # noqa: F401 - to have read it
from tests.kernel.kerneltest import SMALL_RING, cache_folder
from tests.kernel.test_loader import refused_typed_loads

# (Probe, budget, what the tests change in the loader)
SETTINGS: tuple[tuple[str, Budget, dict[str, Any]], ...] = (
    *((name, Budget(), {}) for name in PROBES),
    *((name, Budget(), {"kernel_facts": refused_typed_loads}) for name in PROBES),
    ("packet", SMALL_RING, {}),
    ("packet", Budget(), {"FLOW_BYTES": 0}),
)


def main() -> None:
    for number, (name, budget, changes) in enumerate(SETTINGS, 1):

        def say(progress: str = f"compiling the probe {name} ({number} of {len(SETTINGS)})") -> None:
            print(progress, flush=True)

        with contextlib.ExitStack() as stack:
            for attribute, value in changes.items():
                stack.enter_context(mock.patch.object(loader, attribute, value))
            LoadedProbe(PROBES[name], "node", cache_folder(), budget=budget, compiling=say).close()
    print(f"the probes are compiled: {len(list(cache_folder().glob('*.image')))} images", flush=True)


if __name__ == "__main__":
    main()
