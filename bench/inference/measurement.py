"""Measuring: one worker for each contender, all alive at once, asked in turns, round after round.

Ratios are taken within a round, where the machine was the same for all, and the median of rounds is reported: absolute
figures drift by a third on shared machines, ratios of one round do not.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.bandwidth import read_bandwidth
from inference.engines import Contender
from inference.shapes import Shape
from inference.worker_process import Worker, WorkerError

_WORKERS = Path(__file__).parent.parent / "workers"
_START_PATIENCE = 1800.0  # seconds: a first start converts and compiles
_SEED = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """`batch` prompts of `prompt` tokens each."""

    batch: int
    prompt: int


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `rounds` turns of each contender in a cell, one where a cell has many prompt tokens."""

    rounds: int = 3
    new_tokens: int = 64
    decode_seconds: float = 10.0
    patience: float = 1200.0  # for one cell of one engine
    once_from: int = 20_000  # prompt tokens of a cell, over all sequences

    def rounds_of(self, cell: Cell) -> int:
        """Turns of each contender in `cell`."""
        return 1 if cell.batch * cell.prompt >= self.once_from else self.rounds


@dataclass(slots=True)
class Measured:
    """What the rounds of one shape gave; figures by (cell, label), one entry for each round."""

    shape: Shape
    figures: dict[tuple[Cell, str], list[dict[str, Any]]] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each contender, by label
    failures: dict[str, str] = field(default_factory=dict)  # "label" or "label batch x prompt" -> sentence
    bandwidths: list[float] = field(default_factory=list)  # bytes/s, one for each round of each cell


def model_folder(shape: Shape, work: Path, python: Path) -> Path:
    """The Hugging Face folder of `shape` under `work`, written once by `python`, which must have transformers."""
    place = work / shape.name
    place.mkdir(parents=True, exist_ok=True)
    stamp = place / "shape.json"
    config = json.dumps(shape.config(), sort_keys=True)
    if (place / "model").exists() and (not stamp.exists() or stamp.read_text() != config):
        shutil.rmtree(place)  # made for other sizes: conversions beside it are stale too
        place.mkdir()
    if not (place / "model").exists():
        script = str(_WORKERS / "afmoe_folder.py")
        subprocess.run([str(python), script, config, str(place / "model")], check=True, stdout=subprocess.DEVNULL)
        stamp.write_text(config)
    return place / "model"


def measure(
    shape: Shape,
    model: Path,
    contenders: Sequence[Contender],
    cells: Sequence[Cell],
    cores: Collection[int],
    effort: Effort,
    say: Callable[[str], None],
) -> Measured:
    """Start every contender, then measure every cell in interleaved rounds. What fails is left out, and said."""
    result = Measured(shape)
    longest = max(cell.prompt for cell in cells)
    order = {
        "do": "prepare",
        "model": str(model),
        "work": str(model.parent),
        "threads": len(cores),
        "max_sequences": max(cell.batch for cell in cells),
        "max_context": longest + 2 * effort.new_tokens + max(cell.batch * cell.prompt for cell in cells) // 256,
        "options": {},
    }
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for one in contenders:
            say(f"{shape.name}: starting {one.label}")
            worker = stack.enter_context(Worker(one.kind.name, one.python, cores, model.parent / f"{one.label}.log"))
            try:
                question = order | {"precision": one.precision, "chunk": one.kind.chunk}
                result.details[one.label] = worker.ask(question, _START_PATIENCE)
                workers[one.label] = worker
                worker.ask(_generate(shape, Cell(1, 32), 4, effort), effort.patience)
            except WorkerError as error:
                result.failures[one.label] = str(error)
                workers.pop(one.label, None)
                worker.close()
                say(f"{shape.name}: {one.label} left out: {error}")
        for cell in cells:
            _measure_cell(cell, workers, cores, effort, result, say)
    return result


def _measure_cell(
    cell: Cell,
    workers: dict[str, Worker],
    cores: Collection[int],
    effort: Effort,
    result: Measured,
    say: Callable[[str], None],
) -> None:
    name = f"{cell.batch} x {cell.prompt}"
    rounds = effort.rounds_of(cell)
    question = _generate(result.shape, cell, effort.new_tokens, effort)
    for number in range(rounds):
        result.bandwidths.append(read_bandwidth(sorted(cores)))
        for label, worker in list(workers.items()):
            if f"{label} {name}" in result.failures:
                continue
            try:
                if number == 0 and rounds > 1:  # kernels for the cell's sizes are built once, outside the clock
                    worker.ask(question | {"new_tokens": 4}, effort.patience)
                figure = worker.ask(question, effort.patience)
            except WorkerError as error:
                result.failures[f"{label} {name}"] = str(error)
                say(f"{result.shape.name} {name}: {label} failed: {error}")
                if "error" not in str(error).lower():  # it ended or hangs; an exception leaves it alive
                    worker.close()
                    del workers[label]
                continue
            result.figures.setdefault((cell, label), []).append(figure)
            prefill = cell.batch * cell.prompt / figure["prefill_s"]
            decode = figure["decode_tokens"] / figure["decode_s"]
            say(
                f"{result.shape.name} {name} round {number + 1}/{rounds}: "
                f"{label:<18} prefill {prefill:>8.0f}  decode {decode:>7.1f} tok/s"
            )


def _generate(shape: Shape, cell: Cell, new_tokens: int, effort: Effort) -> dict[str, Any]:
    """The same token ids for every engine: uniform, from a generator seeded by the cell; no special tokens."""
    source = random.Random(f"{_SEED} {cell.batch} {cell.prompt}")
    prompts = [[source.randrange(3, shape.vocab_size) for _ in range(cell.prompt)] for _ in range(cell.batch)]
    return {"do": "generate", "prompts": prompts, "new_tokens": new_tokens, "max_seconds": effort.decode_seconds}
