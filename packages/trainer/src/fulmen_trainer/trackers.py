"""Where measurements go: `metrics.jsonl` of the stage always, and the trackers that the recipe names.

In: records of the training loop. Out: one JSON object a line, consistent with the checkpoint that a run resumes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from fulmen_core.files import atomic_write_text

#: What a record holds: measurements, and ``"step"``.
Record = dict[str, float]


class Tracker(Protocol):
    """What a plugin's ``open(run, stage)`` returns (hook `fulmen_trackers`)."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the measurements of one interval."""
        ...

    def close(self) -> None:
        """Flush. Called once, also after a failure."""
        ...


def read_metrics(path: Path) -> list[Record]:
    """The records of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    records: list[Record] = []
    if not path.exists():
        return records
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class MetricsFile:
    """Appends records to `path`, after dropping those that came after `first_step` (they will be computed again)."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.history = [record for record in read_metrics(path) if record["step"] <= first_step]
        atomic_write_text(path, "".join(json.dumps(record) + "\n" for record in self.history))
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one record and hand it to the operating system at once: a killed process loses none."""
        record: Record = {"step": step, **metrics}
        self.history.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()
