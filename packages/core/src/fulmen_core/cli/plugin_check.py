"""Tries one plugin in a process of its own, for `fulmen doctor`: ``python -m fulmen_core.cli.plugin_check``.

Reads a JSON list of entry points that name one module (or file) on stdin and prints one JSON object on stdout: how each
stands, with its probes run and every dotted path that it promises followed as far as can be without importing. A crash
kills only this process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fulmen_core.hooks import GROUPS
from fulmen_core.plugin_loader import (
    DESCRIPTORS,
    LoadedPlugin,
    LoadFault,
    check_declaration,
    check_group,
    describe_exception,
    hooks_of,
    load_entry,
    load_file,
    probe,
)
from fulmen_core.plugin_records import Entry, Standing

#: Modules that a plugin module must not import: every command that looks at the plugin would pay for them.
HEAVY = ("torch", "numpy", "onnxruntime", "onnx", "tensorrt", "tokenizers", "fastapi", "pydantic")


@dataclass
class Report:
    """What was found out about one plugin module."""

    standing: list[dict[str, Any]] = field(default_factory=list)  # per entry point: state, reason, remedy
    heavy: list[str] = field(default_factory=list)  # modules of `HEAVY` that its import pulled in
    cpu_seconds: float = 0.0  # of its import
    seconds: float = 0.0  # on the clock, of its import
    threads: dict[str, str] = field(default_factory=dict)  # usable backends that choose a number of threads: the loader
    traceback: str = ""


def check(entries: list[Entry]) -> Report:
    """Load the module behind `entries`, which all name the same one, and look at everything it registers."""
    report = Report()
    before, started, began = set(sys.modules), time.process_time(), time.monotonic()
    try:
        loaded = load_file(Path(entries[0].value)) if entries[0].group == "file" else load_entry(entries[0])
        report.cpu_seconds = round(time.process_time() - started, 3)
        report.seconds = round(time.monotonic() - began, 3)
        report.heavy = sorted(set(HEAVY) & (set(sys.modules) - before))
        report.standing = [_plain(_judge(entry, loaded, report)) for entry in entries]
    except LoadFault as error:
        report.standing = [_plain(error.fault) for _ in entries]
        if error.fault.cause:
            report.traceback = "".join(traceback.format_exception(error.fault.cause))
    return report


def _judge(entry: Entry, loaded: LoadedPlugin, report: Report) -> Standing:
    """How one entry point of a loaded plugin stands; notes in `report` which of its backends choose threads."""
    given = entry.group == "file"
    if not given and (fault := check_declaration(entry) or check_group(entry, loaded)):
        return fault
    remedy = f"mend {entry.value}" if given else f"pip install --upgrade {entry.distribution}"
    unavailable: list[str] = []
    usable = False
    for hook in sorted(loaded.hooks & DESCRIPTORS.keys()):
        if not given and hook not in hooks_of(entry.group):
            continue
        for info in loaded.describe(hook):
            if entry.kind == "command" and info.name != entry.name:
                continue  # another entry point answers for that verb
            for loader in (info.load, getattr(info, "probe", ""), getattr(info, "threads", "")):
                if isinstance(loader, str) and loader and (wrong := _leads_nowhere(loader)):
                    return Standing("failed", f"{info.name}: {wrong}", remedy)
            standing = probe(info, remedy)
            if standing.state == "failed":
                return Standing("failed", f"{info.name}: {standing.reason}", remedy)
            usable = usable or standing.state == "active"
            if standing.state == "active" and isinstance(threads := getattr(info, "threads", None), str) and threads:
                report.threads[info.name] = threads
            if standing.state == "unavailable":
                unavailable.append(f"{info.name}: {standing.reason}")
    return Standing("unavailable" if unavailable and not usable else "active", "; ".join(unavailable))


def _leads_nowhere(loader: str) -> str:
    """Say what is wrong with a dotted path, or ``""``. Only the packages above its module are imported."""
    module, _, attribute = loader.partition(":")
    if not attribute:
        return f"{loader!r} is not of the form module:attribute"
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:
        return f"{module} cannot be found: {describe_exception(error)}"
    return "" if spec else f"there is no module {module}"


def _plain(fault: Standing) -> dict[str, Any]:
    return {"state": fault.state, "reason": fault.reason, "remedy": fault.remedy}


if __name__ == "__main__":
    for specs in GROUPS.values():
        importlib.import_module(specs)  # not the plugin's doing, so not in its CPU time
    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not stand among the JSON
        result = check([Entry(**one) for one in json.load(sys.stdin)])
    print(json.dumps(asdict(result)))
