"""What the compiler is asked for a probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kubectl_genainet.agent.bpf.headers import KernelFacts
from kubectl_genainet.agent.bpf.image import CompileJob
from kubectl_genainet.agent.probes.declare import Probe
from kubectl_genainet.assets import asset_dir


def _source(name: str) -> str:
    """The probe's C behind the shared header; BCC rewrites map operations in the main file only."""
    parts = (asset_dir("probes") / "include" / "genainet.h", asset_dir("probes") / name)
    return "\n".join(f'#line 1 "{part.name}"\n{part.read_text()}' for part in parts)


def compile_job(
    probe: Probe, facts: KernelFacts, headers: Path, flags: Sequence[str], *, typed_loads: bool
) -> CompileJob:
    """What the compiler is asked for a probe on the kernel of these facts; `headers` is their `header_tree`."""
    return CompileJob(
        _source(probe.source),
        str(headers),
        (
            f"-I{headers}/include",
            *flags,
            *(f"-DARGS_{name}={count}" for name, count in facts.tracepoints.items()),
            *(["-DTYPED_LOADS"] if typed_loads else []),
        ),
        (
            *(a.function for a in probe.attachments),
            *(a.kprobe.function for a in probe.attachments if a.kprobe and a.gives_less(facts.tracepoints)),
        ),
    )
