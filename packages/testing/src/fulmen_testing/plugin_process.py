"""Looks at a plugin in a process of its own, as every command of a user would meet it: nothing imported, no library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from fulmen_core.plugin_records import Entry

#: Seconds of CPU that the import of a plugin module may cost: `fulmen plugins` and every verb pay it.
IMPORT_CPU_SECONDS = 0.5

_PATIENCE = 120

#: Describes what a plugin brings and probes it where nothing can be imported but Python's library, Fulmen's light parts
#: and the plugin's own package, and no distribution is installed.
_BARE = """
import importlib, importlib.metadata, json, sys
from importlib.metadata import EntryPoint, PackageNotFoundError

hook, name, value, group = json.loads(sys.argv[1])
own = {value.partition(":")[0].partition(".")[0], "fulmen_core", "fulmen_safety", "pluggy", "pydantic", "pydantic_core",
       "pydantic_settings", "typing_extensions", "annotated_types", "typing_inspection", "dotenv", "rich"}

class Absent:
    def find_spec(self, module, path=None, target=None):
        root = module.partition(".")[0]
        if root not in own and root not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return None

def missing(distribution):
    raise PackageNotFoundError(distribution)

sys.meta_path.insert(0, Absent())
importlib.metadata.version = importlib.metadata.distribution = missing
from fulmen_core.descriptors import Availability, resolve
from fulmen_core.plugin_loader import load_entry, load_file
from fulmen_core.plugin_records import Entry
from pathlib import Path
loaded = load_file(Path(value)) if group == "file" else load_entry(Entry(name, group, value, "", ""))
(info,) = [one for one in loaded.describe(hook) if one.name == name]
answer = resolve(info.probe)()
assert isinstance(answer, Availability), f"the probe returned {answer!r}"
print(json.dumps([answer.ok, answer.reason]))
"""


def examine(entry: Entry) -> dict[str, Any]:
    """Import the plugin in a fresh process and look at all that it registers: see `fulmen_core.cli.plugin_check`.

    Returns: its report: ``standing`` (state, reason, remedy), ``heavy`` (modules), ``cpu_seconds``, ``traceback``.
    """
    done = _python(["-m", "fulmen_core.cli.plugin_check"], question=json.dumps([asdict(entry)]))
    assert done.returncode == 0, f"the import of {entry.value} ended its process:\n{done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def probe_bare(hook: str, name: str, entry: Entry) -> tuple[bool, str]:
    """Probe a backend where no library is installed. Returns: whether it says it is usable, and the reason it gives."""
    done = _python(["-c", _BARE, json.dumps([hook, name, entry.value, entry.group])])
    assert done.returncode == 0, f"the probe of {name} raised where no library is installed:\n{done.stderr}"
    ok, reason = json.loads(done.stdout.splitlines()[-1])
    return bool(ok), str(reason)


def _python(arguments: list[str], question: str = "") -> subprocess.CompletedProcess[str]:
    # What can be imported here can be imported there: the plugin may be no installed distribution.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    order = [sys.executable, "-P", *arguments]
    return subprocess.run(
        order, input=question, capture_output=True, text=True, timeout=_PATIENCE, check=False, env=environment
    )
