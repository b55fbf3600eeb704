"""Every probe against the kernels that the project supports, without booting them: compiled against their own types.

That a probe loads and counts there is shown in a virtual machine (tests/vm).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.agent.bpf.btf import Btf
from kubectl_genainet.agent.bpf.compile_job import compile_job
from kubectl_genainet.agent.bpf.headers import KernelFacts, header_tree, read_facts
from kubectl_genainet.agent.bpf.image import compiled
from kubectl_genainet.agent.probes import PROBES
from tests.kernel.kerneltest import RELEASES, cache_folder, other_kernel

_INSN = 8  # bytes of a BPF instruction


def facts_of(release: str, name: str) -> KernelFacts:
    probe = PROBES[name]
    points = [attachment.tracepoint for attachment in probe.attachments]
    return read_facts(Btf(other_kernel(release)), probe.views, probe.enums, points)


@pytest.mark.parametrize("name", sorted(PROBES))
@pytest.mark.parametrize("release", RELEASES)
def test_probe_compiles_against_the_types_of_the_kernel(release: str, name: str) -> None:
    facts = facts_of(release, name)
    cache: Path = cache_folder()
    flags = (
        "-DRING_PAGES=16",
        "-DFLOW_ENTRIES=1024",
        "-DSTREAM_ENTRIES=1024",
        "-DTICK_NS=4000000",
        *(["-DHAS_DROP_REASON"] if facts.drop_reasons else []),
    )
    attachments = PROBES[name].attachments
    kprobes = {a.kprobe.function for a in attachments if a.kprobe and a.gives_less(facts.tracepoints)}
    assert bool(kprobes) == (name == "drops" and release != "6.12")
    functions = {attachment.function for attachment in attachments} | kprobes
    for typed_loads in (False, True) if facts.typed_cast else (False,):
        job = compile_job(PROBES[name], facts, header_tree(facts, cache), flags, typed_loads=typed_loads)
        image = compiled(name, job)
        assert image.programs.keys() == functions
        assert all(len(code) > _INSN and len(code) % _INSN == 0 for code in image.programs.values())
        events = set() if name == "connections" else {"ring"}  # that probe only counts
        assert {"config", "filter", "account", *events} <= {table.name for table in image.maps}


@pytest.mark.parametrize("release", RELEASES)
def test_every_tracepoint_that_a_probe_cannot_do_without_is_there(release: str) -> None:
    for name, probe in PROBES.items():
        known = facts_of(release, name).tracepoints
        assert {a.tracepoint for a in probe.attachments if a.required} <= known.keys(), name


def test_what_the_kernels_give_grows_as_the_table_in_the_docs_says() -> None:
    """docs/kernels.md: reasons of drops from 5.17, reasons of resets from 6.10, typed loads from 6.2."""
    given = {release: facts_of(release, "drops") for release in RELEASES}
    assert {r: bool(f.drop_reasons) for r, f in given.items()} == {"5.10": False, "6.1": True, "6.12": True}
    assert {r: bool(f.enums["sk_rst_reason"]) for r, f in given.items()} == {"5.10": False, "6.1": False, "6.12": True}
    assert {r: bool(f.typed_cast) for r, f in given.items()} == {"5.10": False, "6.1": False, "6.12": True}
    assert {r: f.tracepoints["kfree_skb"] for r, f in given.items()} == {"5.10": 2, "6.1": 3, "6.12": 4}
