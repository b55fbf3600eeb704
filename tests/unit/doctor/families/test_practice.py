"""Every row of docs/practice.md: its checks are silent on a sound cluster, and find the fault in one that has it.

The clusters are written as a user has them, and read back: as a folder of `kubectl get -o yaml` where objects are all
that a check needs, as a recorded bundle where it needs what nodes report. Measurements are handed over as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import pytest
import yaml

from kubectl_genainet.bundle import BundleWriter, new_header
from kubectl_genainet.doctor.check import Need
from kubectl_genainet.doctor.registry import all_checks, check_named
from kubectl_genainet.doctor.report import Report
from kubectl_genainet.model.events import Event
from kubectl_genainet.run.collect import DoctorCollector
from kubectl_genainet.run.doctor.doctor import DoctorOptions, doctor
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.sources.manifests import ManifestsSource
from tests.unit.doctor.faults.case import Case
from tests.unit.doctor.faults.cases import CASES
from tests.unit.doctor.worlds.world import NOW, World

PAGE = Path(__file__).parents[4] / "docs" / "practice.md"
AREAS = (
    *(
        "CNI",
        "Pod IP set-up",
        "Services",
        "NLB",
        "Health checks",
        "Ingress",
        "Gateway API",
        "Service mesh",
        "NetworkPolicy",
    ),
    *(
        "FQDN and global policy",
        "kube-proxy",
        "IP exhaustion",
        "eBPF data planes",
        "SR-IOV",
        "CoreDNS",
        "NodeLocal DNSCache",
    ),
    *("Lookup habits", "Placement groups", "EFA", "GPU nodes"),
)
MEASURED = {Need.DNS, Need.FABRIC}  # what no bundle of objects and reports holds as the checks take it


@dataclass(frozen=True)
class Row:
    area: str
    fault: str
    checks: tuple[str, ...]


def rows() -> list[Row]:
    cells = [
        [c.strip() for c in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if line[:1] == "|"
    ]
    return [Row(area, fault, tuple(re.findall(r"`([^`]+)`", checks))) for area, fault, checks in cells[2:]]


ROWS = rows()
CHOSEN = [next((c for c in CASES if c.check == name), None) for row in ROWS for name in row.checks]


def test_every_row_names_checks_and_every_check_is_in_a_row() -> None:
    named = [name for row in ROWS for name in row.checks]
    assert [row.fault for row in ROWS if not row.checks] == []
    assert sorted(named) == sorted(check.name for check in all_checks())
    assert tuple(dict.fromkeys(row.area for row in ROWS)) == AREAS
    assert None not in CHOSEN


def from_folder(world: World, folder: Path) -> Source:
    """A file for each kind, as `kubectl get KIND -A -o yaml` writes it; the same file stands for the same dump."""
    everything = {"apiVersion": "v1", "kind": "List", "items": list(world.objects.values())}
    folder.mkdir()
    (folder / "cluster.yaml").write_text(yaml.dump(everything, Dumper=yaml.CSafeDumper))
    return ManifestsSource([str(folder)], all_namespaces=True)


def from_bundle(world: World, folder: Path) -> Source:
    folder.mkdir()
    with BundleWriter(folder / "run.gnb", new_header("trace", {}, NOW), world.cluster().snapshot) as bundle:
        events = [*world.reports, *world.rulesets, *world.packets]
        for event in events:
            bundle.write(cast(Event, event))
    return BundleSource(folder / "run.gnb", all_namespaces=True)


def needs(case: Case) -> set[Need]:
    check = check_named(case.check)
    assert check is not None
    return {n for n in check.needs if isinstance(n, Need)}


def examined(case: Case, world: World, folder: Path) -> Report:
    """What the command says of a cluster that was read from files."""
    read = from_bundle if world.reports or world.rulesets or world.packets else from_folder
    source = read(world, folder)
    return doctor(source, DoctorOptions(only=(case.check,)), DoctorCollector()).report


@cache
def sound(base: Callable[[], World]) -> World:
    return base()


@pytest.mark.parametrize("case", [c for c in CHOSEN if c is not None], ids=lambda c: c.check)
def test_a_rows_check_finds_its_fault_and_leaves_the_sound_cluster_alone(case: Case, tmp_path: Path) -> None:
    faulty = case.base()
    case.fault(faulty)
    if needs(case) & MEASURED:
        reports = [faulty.report(), sound(case.base).report()]
    else:
        reports = [examined(case, faulty, tmp_path / "faulty"), examined(case, sound(case.base), tmp_path / "sound")]
        if case.check in {n.what for n in reports[0].not_checked}:  # a dump that need not be complete: it says so
            reports[0] = faulty.report()
    found = [[str(f.object) for f in report.findings if f.check == case.check] for report in reports]
    assert case.object in found[0], reports[0].not_checked
    assert found[1] == []
