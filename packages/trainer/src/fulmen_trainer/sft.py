"""Supervised fine-tuning (report section 4.1): packed samples, answers alone trained, every sample of equal weight.

In: a model directory and JSON Lines of instructions. Out: a model directory with its measurements.

Legend: B rows, T positions, D model width, N trained positions, M samples of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_trainer.conversations import read_instructions, scored_counts
from fulmen_trainer.linear_loss import linear_cross_entropy
from fulmen_trainer.objectives import sample_weights
from fulmen_trainer.packing_samples import PackedRows, Sample, pack
from fulmen_trainer.post_training import ObjectiveModule, PostTrainingConfig, RowTensors, open_model, run_stage
from fulmen_trainer.sample_order import batch_indices

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.model.transformer import Transformer
    from fulmen_core.registry import Registry
    from fulmen_trainer.display import Display


class SFTConfig(PostTrainingConfig):
    """Settings of fine-tuning."""

    too_long: Literal["drop", "truncate"] = "drop"  # what happens to a sample longer than `sequence_length`
    max_penalty: float = Field(0.5, ge=0, le=1)  # RAISE-2: samples above it are dropped; without a guard none is judged


class FineTuning:
    """The objective ``(1/M) sum_m (1/|y_m|) sum_t -log p(y_m,t)`` over the M samples of a step.

    It depends neither on how samples are packed into rows nor on how rows are split into micro-batches.
    """

    def __init__(self, model: Transformer, samples: Sequence[Sample], config: PostTrainingConfig) -> None:
        self._model, self._samples, self._config = model, samples, config
        self._trained = scored_counts(samples)

    def _indices(self, step: int) -> NDArray[np.int64]:
        return batch_indices(len(self._samples), self._config.batch_size, step, self._config.seed)

    def rows(self, step: int) -> list[PackedRows]:
        """The samples of `step`, packed."""
        batch = [self._samples[index] for index in self._indices(step)]
        return pack(batch, self._config.sequence_length, self._config.rows_per_micro_batch)

    def loss(self, hidden_BTD: Tensor, rows: RowTensors, step: int) -> tuple[Tensor, dict[str, float]]:
        """See the class."""
        head_VD = self._model.head_weight_VD
        hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, rows.scored_N).to(head_VD.dtype)
        weights_M = sample_weights(torch.from_numpy(self._trained[self._indices(step)])).to(hidden_ND.device)
        weights_N = weights_M.index_select(0, rows.sample_N)
        cross_entropy = self._model.operations.cross_entropy
        loss = linear_cross_entropy(hidden_ND, head_VD, rows.targets_N, weights_N, cross_entropy)
        return loss, {"trained_tokens": float(len(rows.targets_N))}


def fine_tune(
    start: Path,
    data: Path,
    *,
    config: SFTConfig,
    registry: Registry,
    work: Path,
    guard: Guard | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Fine-tune the model in `start` on `data` and leave a model directory in `work`.

    Args:
        start: model directory, with its tokenizer.
        data: JSON Lines of ``{"messages": [...]}``.
        config: settings.
        registry: where the backend and the trackers come from.
        work: an existing folder that survives a kill; called again with it, training goes on bit for bit.
        guard: RAISE-2, drops samples whose answers it penalises above ``config.max_penalty``.
        display: where progress is shown.

    Returns:
        ``loss`` of the last interval, ``tokens``, ``seconds``, and the counts of `InstructionSet`.

    Raises:
        UserError: see `read_instructions` and `open_model`.
    """
    _, tokenizer = open_model(start, config.sequence_length)
    instructions = read_instructions(
        data,
        tokenizer,
        config.sequence_length,
        too_long=config.too_long,
        guard=guard,
        max_penalty=config.max_penalty,
    )
    model = load_model(start)
    program = config.prepare(model, registry)
    objective = FineTuning(model, instructions.samples, config)
    module = ObjectiveModule(model, model, program, objective, config)
    measured = run_stage(module, stage="sft", config=config, work=work, registry=registry, display=display)
    save_model(model, work)
    tokenizer.save(work)
    return {**measured, **instructions.counts(), **program.choices}
