"""What fine-tuning, reward model and DPO share: packed micro-batches through a prepared trunk into an objective.

In: a model prepared by a backend and an `Objective`. Out: a `TrainModule` for the loop.

Legend: B rows, T positions, D model width, N scored positions, M samples of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fulmen_core.backend import Dtype, TrainPlan, TrainProgram
from fulmen_core.errors import UserError
from fulmen_core.model.balance import balance_losses
from fulmen_core.model.checkpoint import load_config
from fulmen_core.tokenizer import Tokenizer, load_tokenizer
from fulmen_trainer.loop import run_loop
from fulmen_trainer.optimizers import Optimizer, OptimizerConfig, build_optimizer
from fulmen_trainer.packing_samples import PackedRows
from fulmen_trainer.schedules import constant, cosine
from fulmen_trainer.training_state import load_training_state, save_training_state

if TYPE_CHECKING:
    from fulmen_core.model.config import ModelConfig
    from fulmen_core.model.transformer import Transformer, TransformerOutput
    from fulmen_core.registry import Registry
    from fulmen_trainer.display import Display

#: The share of the peak learning rate that a cosine ends with: the last steps should not be for nothing.
COSINE_FLOOR = 0.05
#: What the last interval says nothing about the run with.
NOT_SUMMARISED = ("step", "tokens", "tokens_per_second", "seconds", "lr")


class PostTrainingConfig(BaseModel):
    """How long, how fast and in which batches. Lengths are in tokens, durations in optimizer steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total_steps: int = Field(200, ge=1)
    batch_size: int = Field(64, ge=1)  # samples of a step; pairs where the data are pairs
    sequence_length: int = Field(512, ge=8)  # of a packed row, and the longest sample
    rows_per_micro_batch: int = Field(16, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(10, ge=0)
    seed: int = Field(0, ge=0)

    backend: str = "auto"
    dtype: Dtype | Literal["auto"] = "auto"
    compile: bool = False
    experts: Literal["auto", "grouped", "dense", "fp8"] = "auto"
    checkpoint_every: int = Field(100, ge=0)
    log_every: int = Field(10, ge=1)
    trackers: tuple[str, ...] = ()

    def lr_scale(self, step: int) -> float:
        """The factor on the peak learning rate at `step`."""
        if self.schedule == "constant":
            return constant(step, self.total_steps, warmup=self.warmup_steps)
        return cosine(step, self.total_steps, warmup=self.warmup_steps, floor=COSINE_FLOOR)

    def prepare(self, model: nn.Module, registry: Registry) -> TrainProgram:
        """Have the backend prepare `model` for training."""
        plan = TrainPlan(dtype=self.dtype, compile=self.compile, experts=self.experts)
        return registry.backend(self.backend).prepare_training(model, plan)


@dataclass(frozen=True, slots=True)
class RowTensors:
    """`PackedRows` as tensors."""

    tokens_BT: Tensor
    positions_BT: Tensor
    segments_BT: Tensor
    scored_N: Tensor
    targets_N: Tensor
    sample_N: Tensor

    @classmethod
    def of(cls, rows: PackedRows, device: torch.device) -> RowTensors:
        """On the device of the model; on the CPU they share the arrays' memory."""
        arrays = (
            rows.tokens_BT,
            rows.positions_BT,
            rows.segments_BT,
            rows.scored_N,
            rows.targets_N,
            rows.sample_N,
        )
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.segments_BT >= 0).sum())


class Objective(Protocol):
    """What a step minimises. Both methods are functions of their arguments and of data that never changes."""

    def rows(self, step: int) -> Sequence[PackedRows]:
        """The micro-batches of step `step`."""
        ...

    def loss(self, hidden_BTD: Tensor, rows: RowTensors, step: int) -> tuple[Tensor, dict[str, float]]:
        """The micro-batch's share in the loss of the batch, and its shares in the measurements."""
        ...


class ObjectiveModule:
    """A `fulmen_trainer.loop.TrainModule`: micro-batches of packed rows through a prepared trunk into an objective.

    Args:
        trained: the module whose parameters are trained and saved; it holds `trunk`.
        trunk: the transformer.
        program: the trunk as the backend prepared it.
        objective: the loss.
        config: optimizer and schedule.
    """

    def __init__(
        self,
        trained: nn.Module,
        trunk: Transformer,
        program: TrainProgram,
        objective: Objective,
        config: PostTrainingConfig,
    ) -> None:
        self._trained, self._trunk, self._program, self._objective = trained, trunk, program, objective
        self._config = config
        products = torch.bfloat16 if program.choices.get("dtype") == "bfloat16" else torch.float32
        self.optimizer: Optimizer = build_optimizer(trained, config.optimizer, products=products)

    def train_step(self, step: int) -> dict[str, float]:
        """One optimizer step. Balance losses are means over micro-batches: their counts belong to one forward pass."""
        device = self._trunk.embed.weight.device
        micro_batches = [RowTensors.of(rows, device) for rows in self._objective.rows(step)]
        metrics: dict[str, float] = {}
        for rows in micro_batches:
            hidden_BTD, balance = self._forward(rows)
            balance = balance / len(micro_batches)
            loss, measured = self._objective.loss(hidden_BTD, rows, step)
            torch.autograd.backward(loss + balance)
            shares = {"loss": float(loss.detach()), "balance_loss": float(balance.detach()), "tokens": rows.tokens}
            for name, share in {**measured, **shares}.items():
                metrics[name] = metrics.get(name, 0.0) + share
        scale = self._config.lr_scale(step)
        metrics["grad_norm"] = self.optimizer.step(scale)
        metrics["lr"] = self._config.optimizer.lr * scale
        return metrics

    def _forward(self, rows: RowTensors) -> tuple[Tensor, Tensor]:
        """Hidden states ``[B, T, D]`` and the weighted balance loss, a scalar."""
        with self._program.autocast():
            output: TransformerOutput = self._program.model(
                rows.tokens_BT, positions_BT=rows.positions_BT, segments_BT=rows.segments_BT
            )
        if output.router is None:
            return output.hidden_BTD, torch.zeros((), device=output.hidden_BTD.device)
        config = self._trunk.config
        return output.hidden_BTD, balance_losses(output.router, config.balance, config.num_experts_per_tok).total

    def save(self, directory: Path) -> None:
        """Write weights and optimizer state."""
        save_training_state(directory, self._trained, self.optimizer)

    def load(self, directory: Path) -> None:
        """Read them back."""
        load_training_state(directory, self._trained, self.optimizer)


def head_of(model: Transformer) -> Callable[[Tensor], Tensor]:
    """The head in the precision of its weights, whatever autocast made of the hidden states.

    Sums of log-probabilities over an answer, and their differences, would drown in bfloat16's rounding.
    """
    return lambda hidden_D: model.logits(hidden_D.to(model.head_weight_VD.dtype))


def open_model(directory: Path, sequence_length: int) -> tuple[ModelConfig, Tokenizer]:
    """Read config and tokenizer of a model directory and check that they fit each other and the sequence length.

    Raises:
        UserError: the directory is missing, the tokenizer is another model's, or rows would be longer than the context.
    """
    if not directory.is_dir():
        raise UserError(f"there is no model directory {directory}", remedy="give the path of a trained model")
    config = load_config(directory)
    tokenizer = load_tokenizer(directory)
    tokenizer.check_model_vocab(config.vocab_size, str(directory))
    if sequence_length > config.max_position_embeddings:
        raise UserError(
            f"sequence_length {sequence_length} exceeds the model's context of {config.max_position_embeddings}",
            where=str(directory),
            remedy="lower sequence_length",
        )
    return config, tokenizer


def run_stage(
    module: ObjectiveModule,
    *,
    stage: str,
    config: PostTrainingConfig,
    work: Path,
    registry: Registry,
    display: Display | None = None,
) -> dict[str, float]:
    """Run the loop as `config` says; return the last interval's means, and the tokens and seconds of the whole run."""
    history = run_loop(
        module,
        stage=stage,
        total_steps=config.total_steps,
        work=work,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        registry=registry,
        display=display,
        trackers=config.trackers,
    )
    return {
        **{name: value for name, value in history[-1].items() if name not in NOT_SUMMARISED},
        "tokens": sum(record["tokens"] for record in history),
        "seconds": sum(record["seconds"] for record in history),
    }
