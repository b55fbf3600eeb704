"""Of the machines' runs only those are kept that each test passed with."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.vm.kept import forget_last


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        forget_last()
    return report
