"""`fulmen doctor`: tries every plugin in a process of its own and says what is broken, why, and what mends it."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import groupby
from typing import Any

from fulmen_core.cli import arguments, context
from fulmen_core.cli.output import note, print_json, print_table
from fulmen_core.cli.plugin_check import Report
from fulmen_core.cli.plugins import COLUMNS
from fulmen_core.cli.thread_choice import describe, explain_threads
from fulmen_core.plugin_records import Entry, PluginRecord, Standing

_SLOW = 1.0  # seconds of an import that are worth a word
_PATIENCE = 120  # seconds for one plugin; a cold import of torch on a busy machine takes tens


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    record: PluginRecord
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether something must be mended; a backend that this machine cannot run is not broken."""
        return self.record.state in ("failed", "conflict")


def run(argv: Sequence[str]) -> int:
    """Try every plugin. Returns 1 if any is broken, 0 otherwise."""
    parser = arguments.parser("fulmen doctor", "try every plugin in a process of its own", recipe=False)
    parser.add_argument("--traceback", action="store_true", help="print the tracebacks of plugins that do not load")
    args = parser.parse_args(argv)
    findings: list[Finding] = []
    loaders: dict[str, str] = {}
    declared = sorted(context.registry().declared(), key=lambda one: one[0].value)
    for value, members in groupby(declared, key=lambda one: one[0].value):
        pairs = list(members)
        findings += [Finding(record) for _, record in pairs if record.state == "blocked"]
        tried = [(entry, record) for entry, record in pairs if record.state != "blocked"]
        if not tried:
            continue
        report = examine([entry for entry, _ in tried])
        loaders |= report.threads
        findings += [_finding(*pair, standing, report) for pair, standing in zip(tried, report.standing, strict=True)]
        if report.traceback and args.traceback:
            note(f"--- {value}\n{report.traceback}")
    findings.sort(key=lambda finding: (finding.record.kind, finding.record.name))
    versions = member_versions()
    threads = explain_threads(loaders)
    if args.json:
        print_json(_as_json(findings, versions) | {"threads": threads})
    else:
        _print(findings, versions, threads)
    return int(any(finding.broken for finding in findings) or len(set(versions.values())) > 1)


def examine(entries: Sequence[Entry]) -> Report:
    """Check the module behind `entries` in a subprocess. A crash or an endless import becomes a fault of the plugin."""
    # -P: the current folder is no more importable than it is for the installed command.
    order = [sys.executable, "-P", "-m", "fulmen_core.cli.plugin_check"]
    question = json.dumps([asdict(entry) for entry in entries])
    try:
        done = subprocess.run(order, input=question, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return _hopeless(entries, f"it did not finish within {_PATIENCE} s")
    if done.returncode == 0:
        return Report(**json.loads(done.stdout.splitlines()[-1]))  # extensions may have printed before
    if done.returncode < 0:
        return _hopeless(entries, f"it killed its process with {signal.Signals(-done.returncode).name}", done.stderr)
    return _hopeless(entries, f"it ended its process with exit code {done.returncode}", done.stderr)


def member_versions() -> dict[str, str]:
    """Return the version of every installed ``fulmen-…`` distribution; they are made to agree."""
    names = {(dist.metadata["Name"] or "").lower(): dist.version for dist in metadata.distributions()}
    return {name: version for name, version in sorted(names.items()) if name == "fulmen" or name.startswith("fulmen-")}


def _hopeless(entries: Sequence[Entry], reason: str, stderr: str = "") -> Report:
    remedy = f"pip install --upgrade {entries[0].distribution}, or pass --no-plugin {entries[0].distribution}"
    return Report(standing=[{"state": "failed", "reason": reason, "remedy": remedy}] * len(entries), traceback=stderr)


def _finding(entry: Entry, record: PluginRecord, standing: Mapping[str, Any], report: Report) -> Finding:
    notes: tuple[str, ...] = ()
    if report.heavy:
        notes = (f"its import pulls in {', '.join(report.heavy)} ({report.cpu_seconds:.2f} s of CPU)",)
    elif report.seconds > _SLOW:
        notes = (f"its import takes {report.seconds:.1f} s, for which every command that looks at it waits",)
    if record.state == "declared":  # else the metadata told already what is wrong
        record = Standing(**standing).record(record.name, record.kind, entry)
    return Finding(record, notes)


def _as_json(findings: Sequence[Finding], versions: Mapping[str, str]) -> dict[str, Any]:
    rows = [{**one.record.as_json(), "notes": list(one.notes)} for one in findings]
    return {"python": platform.python_version(), "platform": platform.platform(), "versions": versions, "plugins": rows}


def _print(findings: Sequence[Finding], versions: Mapping[str, str], threads: Mapping[str, Mapping[str, Any]]) -> None:
    print(f"Python {platform.python_version()} on {platform.platform()}")
    print_table(
        COLUMNS,
        ([one.record.as_json()[column] for column in COLUMNS] for one in findings),
        empty="No plugin is installed.",
    )
    for one in findings:
        who = f"{one.record.kind} {one.record.name} ({one.record.distribution})"
        for remark in one.notes:
            print(f"{who}: {remark}")
        if one.broken and one.record.remedy:
            print(f"{who}: {one.record.remedy}")
    for name, choice in threads.items():
        for line in describe(choice):
            print(f"backend {name}: {line}")
    if len(set(versions.values())) > 1:
        print("Versions differ: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
        print(f"pip install --upgrade {' '.join(versions)}")
    if not any(one.broken for one in findings):
        print("Every plugin loads.")
