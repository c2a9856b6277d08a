"""Runs the claims of one subject in a process of its own: ``python -m fulmen_testing.suite_process``.

Reads a `Task` as JSON on stdin and prints one JSON object a line: ``{"collected": [...]}`` with the claims, ``{"begin":
claim}`` when one starts, ``{"end": ...}`` with its verdict, ``{"fault": ...}`` if none can be run. A plugin that kills
the process, or hangs, is known by the claim that began and did not end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pytest

from fulmen_core.registry import Discovery
from fulmen_testing.subject import Kind, Subject

_LONGEST_REASON = 600


@dataclass(frozen=True)
class Task:
    """What to hold against which claims."""

    kind: Kind
    name: str
    disabled: Sequence[str] = ()
    files: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    examples: Sequence[str] = ()
    seed: int | None = None
    only: Sequence[str] = ()  # claims whose names contain one of these; none: all
    done: Sequence[str] = ()  # claims that are not to be tried again

    def as_json(self) -> str:
        """The task as the process reads it."""
        return json.dumps(asdict(self))

    def subject(self) -> Subject:
        """Discover the plugins and find the subject among them."""
        registry = Discovery(tuple(self.disabled), tuple(map(Path, self.files))).repeat()
        return Subject.installed(self.name, registry, settings=self.settings, examples=tuple(self.examples))


class Reporter:
    """A pytest plugin that tells the parent what happens."""

    def __init__(self, task: Task, out: TextIO) -> None:
        self._task, self._out = task, out
        self._title: dict[str, str] = {}

    def tell(self, **event: Any) -> None:
        """Send one line."""
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Give the claims their subject and seed."""
        config.fulmen_subject = self._task.subject()  # type: ignore[attr-defined]
        config.fulmen_seed = self._task.seed  # type: ignore[attr-defined]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what was tried before, and say what is there."""
        only, done = self._task.only, set(self._task.done)
        items[:] = [
            one for one in items if one.name not in done and (not only or any(part in one.name for part in only))
        ]
        for item in items:
            self._title[item.name] = _title(item)
        self.tell(collected=[item.name for item in items])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell a fault that leaves no claim to run."""
        if report.failed:
            self.tell(fault=str(report.longrepr))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell which claim is tried from now on."""
        self.tell(begin=_claim(nodeid), title=self._title.get(_claim(nodeid), ""))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell a verdict: of the call, or of a set-up or tear-down that did not go well."""
        if report.when != "call" and report.passed:
            return
        measured = [str(value) for name, value in report.user_properties if name == "measured"]
        detail = "" if report.passed else "\n".join([str(report.longrepr), *(text for _, text in report.sections)])
        self.tell(
            end=_claim(report.nodeid),
            outcome=report.outcome,
            reason=_reason(report),
            detail="" if report.skipped else detail,
            measured="; ".join(measured),
            seconds=round(report.duration, 3),
        )


def run(task: Task, out: TextIO) -> int:
    """Run the claims under pytest, apart from any configuration, conftest or plugin that is lying about."""
    suite = Path(__file__).parent / "suites" / f"{task.kind}.py"
    with tempfile.TemporaryDirectory(prefix="fulmen-conform-") as folder:
        ini = Path(folder) / "pytest.ini"
        ini.write_text("[pytest]\n")
        options = ["-c", str(ini), "--rootdir", folder, "--basetemp", f"{folder}/tmp", "--noconftest", "--tb=short"]
        return int(pytest.main([*options, "-p", "no:cacheprovider", "-q", str(suite)], plugins=[Reporter(task, out)]))


def _title(item: pytest.Item) -> str:
    document = " ".join((getattr(item.obj, "__doc__", "") or item.name).split())  # type: ignore[attr-defined]
    _, bracket, parameters = item.name.partition("[")
    return f"{document} ({parameters.removesuffix(']').replace('-', ', ')})" if bracket else document


def _claim(nodeid: str) -> str:
    return nodeid.partition("::")[2].partition("::")[2]


def _reason(report: pytest.TestReport) -> str:
    if report.skipped:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return " ".join(str(text).removeprefix("Skipped: ").split())
    if report.passed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(crash.message if crash is not None else report.longrepr)
    first = " ".join(message.split("\n\n")[0].split())
    return first if len(first) <= _LONGEST_REASON else first[: _LONGEST_REASON - 1] + "…"


def main() -> int:
    """Run the task that stands on stdin."""
    task = Task(**json.load(sys.stdin))
    out = os.fdopen(
        os.dup(1), "w", encoding="utf-8"
    )  # before pytest captures; what claims and plugins print is not ours
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(BrokenPipeError):
        run(task, out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
