"""All faults, and what doctor reports once one of them is made."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from kubectl_genainet.doctor.report import Report
from tests.unit.doctor import faults
from tests.unit.doctor.faults.case import Case

TOPICS = [
    importlib.import_module(f"{faults.__name__}.{module.name}")
    for module in pkgutil.iter_modules(faults.__path__)
    if module.name not in ("case", "cases")
]
CASES = list(
    {fault.name: fault for topic in TOPICS for fault in vars(topic).values() if isinstance(fault, Case)}.values()
)


@functools.cache
def report_on(case: Case) -> Report:
    world = case.base()
    case.fault(world)
    return world.report()
