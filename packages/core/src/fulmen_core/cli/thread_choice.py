"""How many threads a verb computes on: what the user says, else what the run began with, else the backend's choice.

A choice by measurement differs from one hour to the next, and training on another number of threads rounds some sums
differently. So a run directory keeps the first choice, and whoever resumes the run computes the same bits.

Run as a module, with a loader such as ``package.module:run_on``, it prints the choice as JSON: `fulmen doctor` asks for
it in a process of its own, as the choice imports numeric libraries.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fulmen_core.cli import context
from fulmen_core.descriptors import resolve
from fulmen_core.errors import CorruptArtefact

logger = logging.getLogger(__name__)

FILE = "threads.json"  # in the run directory
_PATIENCE = 120  # seconds; a cold import of torch on a busy machine takes tens


def settle_threads(run: Path, backend: str = "auto") -> None:
    """Set this process's threads for the run in `run` on the backend called `backend`.

    Raises:
        CorruptArtefact: the file in `run` that keeps the first choice does not hold a number of threads.
        PluginError: the backend cannot be used.
    """
    if context.settings().threads is not None:
        return  # `context.limit_threads` has told every library
    name = context.registry().backend(backend).name
    info = next((one for one in context.registry().backend_infos() if one.name == name), None)
    if info is None or not info.threads:
        return
    file = run / FILE
    kept = _kept(file)
    chosen = resolve(info.threads)(kept)
    if kept is None:
        from fulmen_core.files import atomic_write_json

        run.mkdir(parents=True, exist_ok=True)
        atomic_write_json(file, {"threads": chosen["threads"], "reason": chosen["reason"]})
        logger.info("computing on %d threads: %s", chosen["threads"], chosen["reason"])
    else:
        logger.info("computing on %d threads, as this run began", kept)


def explain_threads(loaders: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What each backend would choose now and why, by its name: `loaders` holds their `BackendInfo.threads`.

    One that fails to say has ``{"error": reason}``: whatever it does, it does in a process of its own.
    """
    asked = context.settings().threads
    if asked is not None:
        return {name: {"threads": asked, "reason": "asked for: --threads or FULMEN_THREADS"} for name in loaders}
    return {name: _ask(loader) for name, loader in loaders.items()}


def describe(choice: Mapping[str, Any]) -> list[str]:
    """The lines of `fulmen doctor` for one backend's choice."""
    if "error" in choice:
        return [f"the number of threads cannot be chosen: {choice['error']}"]
    lines = [f"{choice['threads']} thread{'s' if choice['threads'] != 1 else ''}: {choice['reason']}"]
    if rates := choice.get("products_per_s"):
        best = max(rates.values())
        table = ", ".join(f"{number}: {rate:,} ({rate / best:.0%})" for number, rate in rates.items())
        lines.append(f"products a second by threads: {table}")
    return lines


def _kept(file: Path) -> int | None:
    try:
        threads = json.loads(file.read_text(encoding="utf-8"))["threads"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        threads = None
    if type(threads) is not int or threads < 1:
        raise CorruptArtefact(
            "it does not say on how many threads the run began",
            where=str(file),
            remedy="delete it, or pass --threads",
        )
    return threads


def _ask(loader: str) -> dict[str, Any]:
    order = [sys.executable, "-P", "-m", "fulmen_core.cli.thread_choice", loader]
    try:
        done = subprocess.run(order, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"it did not answer within {_PATIENCE} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"error": said[-1] if said else f"exit code {done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    print(json.dumps(dict(resolve(sys.argv[1])(None))))
