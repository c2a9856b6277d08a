"""The card of an artefact, `README.md` in its folder: what it is, of which model, how its tensors are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.export.manifest import Manifest, TensorInfo

CARD_FILE = "README.md"


def write_card(directory: Path, manifest: Manifest, runs: Sequence[str]) -> None:
    """Write the card of an artefact that is being made.

    Args:
        directory: of the artefact.
        manifest: of which `files` need not be known yet.
        runs: lines of shell that run it.
    """
    precision = f"{manifest.dtype}, weights in {manifest.quantize}" if manifest.quantize else manifest.dtype
    windows = sorted({layer.window for layer in manifest.layer_plan if layer.window is not None})
    caches = 1 + max(layer.cache for layer in manifest.layer_plan)
    looks = f", windows of {' and '.join(map(str, windows))} tokens" if windows else ""
    lines = [
        "---",
        f"tags: [fulmen, {manifest.format}]",
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# A language model as {manifest.format}",
        "",
        f"Written by `fulmen export --to {manifest.format}` from the model with the hash `{manifest.model_hash}`.",
        "",
        "| | |",
        "|---|---|",
        f"| precision | {precision} |",
        f"| layers | {len(manifest.layer_plan)}, of which {_mixtures(manifest)} have experts |",
        f"| caches | {caches}{looks} |",
        *(f"| {name} | {version} |" for name, version in manifest.tool_versions.items()),
        "",
        "## Run it",
        "",
        "```bash",
        *runs,
        "fulmen export check .    # does it still compute what the model computed?",
        "```",
        "",
        "## Inputs",
        "",
        *_table(manifest.inputs),
        "",
        "## Outputs",
        "",
        *_table(manifest.outputs),
        "",
        "What the model may be used for, and what it must not, is said by the model, not by this file.",
        "",
    ]
    (directory / CARD_FILE).write_text("\n".join(lines), encoding="utf-8")


def _mixtures(manifest: Manifest) -> int:
    return sum(layer.ffn == "moe" for layer in manifest.layer_plan)


def _table(tensors: Sequence[TensorInfo]) -> list[str]:
    return [
        "| name | dtype | shape |",
        "|---|---|---|",
        *(f"| `{one.name}` | {one.dtype} | {' x '.join(map(str, one.shape))} |" for one in tensors),
    ]
