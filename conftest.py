"""What holds for the tests of every member."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from fulmen_core.cli import context
from fulmen_core.cli.global_options import GlobalOptions


@pytest.fixture(autouse=True)
def forgotten_invocation() -> Generator[None, None, None]:
    """Forget what a test told `fulmen` before the verb: the next one may be of any file."""
    yield
    context.begin(GlobalOptions())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test of a GPU fail where its backend is required, so that a runner with a GPU proves something.

    FULMEN_REQUIRE names backends by their folders, separated by commas.
    """
    report = yield
    required = {name.strip() for name in os.environ.get("FULMEN_REQUIRE", "").split(",")}
    backends = item.config.rootpath / "backends"
    if report.skipped and item.get_closest_marker("gpu") and item.path.is_relative_to(backends):
        backend = item.path.relative_to(backends).parts[0]
        if backend in required:
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"FULMEN_REQUIRE asks for {backend}, and its test was skipped: {reason}"
    return report
