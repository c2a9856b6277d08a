"""What a training verb prints at its end: the artefact's measurements, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen_core.cli import output

if TYPE_CHECKING:
    from fulmen_core.runs import Artefact


def report(artefact: Artefact, *, as_json: bool) -> int:
    """Print the artefact's path and measurements; return the exit code 0."""
    if as_json:
        output.print_json({"model": str(artefact.path), **artefact.measurements})
        return 0
    rows = [[name, _shown(value)] for name, value in _flat(artefact.measurements)]
    output.print_table(["measurement", "value"], rows, empty="nothing measured")
    output.note(f"the model is in {artefact.path}{' (unchanged)' if artefact.skipped else ''}")
    return 0


def _flat(measurements: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested measurements as dotted names; a list's members go by their ``name`` where they have one."""
    if isinstance(measurements, dict):
        members = list(measurements.items())
    elif isinstance(measurements, list):
        members = [
            (part.get("name", place) if isinstance(part, dict) else place, part)
            for place, part in enumerate(measurements)
        ]
    else:
        return [(prefix, measurements)]
    return [pair for name, part in members for pair in _flat(part, f"{prefix}.{name}" if prefix else str(name))]


def _shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
