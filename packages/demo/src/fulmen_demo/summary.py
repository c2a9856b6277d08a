"""The figures of a finished journey: `summary.json`, and the table at the end of the terminal output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fulmen_core.files import read_json
from fulmen_demo.config import DemoConfig
from fulmen_demo.road import ONNX, Journey


@dataclass(frozen=True, slots=True)
class Claim:
    """One headline figure and what it had to be."""

    name: str
    value: str
    claim: str
    met: bool


def summarise(config: DemoConfig, journey: Journey) -> dict[str, Any]:
    """The fields of `summary.json`. Seconds are those of every step's build, the skipped ones' included."""
    measured = {name: artefact.measurements for name, artefact in journey.steps.items()}
    evaluation, export = measured["evaluation"], measured["export"]
    return {
        "heldout_bits_per_byte": measured["base"]["heldout_bits_per_byte"],
        "gzip_bits_per_byte": measured["base"]["gzip_bits_per_byte"],
        "arithmetic_exact_match_base": evaluation["base"]["arithmetic"],
        "arithmetic_exact_match_sft": evaluation["sft"]["arithmetic"],
        "arithmetic_exact_match_dpo": evaluation["dpo"]["arithmetic"],
        "reward_sft": evaluation["sft"]["reward"],
        "reward_dpo": evaluation["dpo"]["reward"],
        "onnx_max_abs_diff": export["max_abs_diff"],
        "onnx_greedy_equal": export["greedy_equal"],
        "seconds": round(sum(journey.seconds.values()), 1),
        "report": str(config.run / "report.html"),
        "model": str(journey.steps["dpo"].path),
        "artefact": str(journey.steps["export"].path / ONNX),
    }


def claims(summary: Mapping[str, Any], guard: Mapping[str, Any]) -> list[Claim]:
    """What the demo promises, and whether it came out so."""
    bits, gzip = summary["heldout_bits_per_byte"], summary["gzip_bits_per_byte"]
    sft, dpo = summary["arithmetic_exact_match_sft"], summary["arithmetic_exact_match_dpo"]
    return [
        Claim(
            "bits per byte, held-out", f"{bits:.3f}", f"≤ 2.0 and under gzip -9: {gzip:.3f}", bits <= 2 and bits < gzip
        ),
        Claim("arithmetic after SFT", f"{sft:.1%}", "exact match ≥ 90 %, held-out", sft >= 0.9),
        Claim("arithmetic after DPO", f"{dpo:.1%}", "not worse than after SFT", dpo >= sft),
        Claim(
            "mean reward after DPO",
            f"{summary['reward_dpo']:+.3f}",
            f"above the SFT model's {summary['reward_sft']:+.3f}",
            summary["reward_dpo"] > summary["reward_sft"],
        ),
        Claim(
            "ONNX against checkpoint",
            f"{summary['onnx_max_abs_diff']:.1e}",
            "largest logit difference ≤ 1e-4, greedy tokens equal",
            summary["onnx_max_abs_diff"] <= 1e-4 and summary["onnx_greedy_equal"],
        ),
        Claim(
            "attacks caught",
            f"{guard['attacks_caught']} of {guard['attacks']}",
            f"{guard['false_alarms']} of {guard['harmless']} harmless texts stopped",
            guard["attacks_caught"] >= 0.75 * guard["attacks"] and guard["false_alarms"] <= 0.01 * guard["harmless"],
        ),
    ]


def evaluation_of(journey: Journey) -> dict[str, Any]:
    """What the evaluation step wrote."""
    return _read(journey.steps["evaluation"].path / "evaluation.json")


def guard_of(journey: Journey) -> dict[str, Any]:
    """What the guard step wrote."""
    return _read(journey.steps["guard"].path / "guard.json")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path, "measurements")
    return content
