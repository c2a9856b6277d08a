"""Three pre-training stages in one run: one schedule, a mixture a stage, one optimizer (report section 3.2).
3.2).

In: token shards by source, a tokenizer, a `PretrainConfig`. Out: a model directory, and `fork/`, the state at the end
of the second stage, from which further fast-decay cycles can start.

Legend: B rows of an optimizer step, T tokens of a row, T1 = T + 1, D model width, N tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from fulmen_core.backend import TrainPlan, TrainProgram
from fulmen_core.files import atomic_directory
from fulmen_core.model.balance import balance_losses
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import parse_config
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.tokenizer import Tokenizer
from fulmen_trainer.bits_per_byte import BitsPerByte, evaluate_bits_per_byte
from fulmen_trainer.data.mixture import MixtureSampler
from fulmen_trainer.data.packing import PackedBatch
from fulmen_trainer.data.shards import ShardSet
from fulmen_trainer.linear_loss import linear_cross_entropy
from fulmen_trainer.loop import checkpoints, run_loop, save_checkpoint
from fulmen_trainer.optimizers import OptimizerConfig, build_optimizer
from fulmen_trainer.schedules import stage_ends, stage_of, three_stage
from fulmen_trainer.training_state import load_training_state, save_optimizer_state, save_training_state

if TYPE_CHECKING:
    from fulmen_core.registry import Registry
    from fulmen_trainer.display import Display

__all__ = ["PretrainConfig", "PretrainModule", "StageConfig", "Stages", "evaluate_bits_per_byte", "pretrain"]


class StageConfig(BaseModel):
    """One stage: its share of all steps, and the share of rows that each source gives; weights need not sum to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(gt=0, lt=1)
    weights: dict[str, float] = Field(min_length=1)


class Stages(BaseModel):
    """The three stages of the report: broad data; a shift towards better data; more of it, with instructions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial: StageConfig
    middle: StageConfig
    decay: StageConfig

    @property
    def all(self) -> tuple[StageConfig, ...]:
        """The stages in order."""
        return (self.initial, self.middle, self.decay)

    @property
    def shares(self) -> tuple[float, ...]:
        """Their shares of all steps."""
        return tuple(stage.share for stage in self.all)


class PretrainConfig(BaseModel):
    """A pre-training run. Lengths are in tokens, batches in rows, times in optimizer steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = "small"
    model: dict[str, Any] = {}  # keys of `ModelConfig` that replace the preset's
    seed: int = 0

    steps: int = Field(1000, gt=0)
    batch_size: int = Field(16, gt=0)
    micro_batch_size: int = Field(0, ge=0)  # rows of one forward pass; 0: the whole batch
    sequence_length: int = Field(256, gt=1)
    stages: Stages

    optimizer: OptimizerConfig = OptimizerConfig()
    warmup: int = Field(50, ge=0)
    plateau: float = Field(0.5, gt=0, le=1)  # of the peak learning rate, at the end of stage 1 and through stage 2
    floor: float = Field(0.02, ge=0, le=0.05)  # of the peak learning rate, at the last step

    backend: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    experts: Literal["auto", "grouped", "dense", "fp8"] = "auto"
    compile: bool = False
    recompute: Literal["none", "experts", "blocks"] = "none"  # less memory, more time

    checkpoint_every: int = Field(200, ge=0)
    log_every: int = Field(10, gt=0)
    evaluate_every: int = Field(0, ge=0)  # 0: only at the end, when all of the held-out text is read
    evaluate_characters: int = Field(50_000, gt=0)  # of held-out text for the measurements on the way
    trackers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        stage_ends(self.steps, self.stages.shares)
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self

    def resolve_model(self, tokenizer: Tokenizer) -> ModelConfig:
        """The preset with the recipe's changes, the tokenizer's vocabulary and its special tokens.

        Raises:
            UserError: an unknown preset or key, or sizes that do not fit each other.
        """
        special = {"eos_token_id": list(tokenizer.stop_ids), "pad_token_id": tokenizer.pad_id}
        base = load_preset(self.preset).model_dump()
        changed = {**base, "vocab_size": tokenizer.vocab_size, **special, **self.model}
        if isinstance(balance := self.model.get("balance"), Mapping):
            changed["balance"] = {**base["balance"], **balance}
        return parse_config(changed, f"the [model] table over preset {self.preset!r}")


class PretrainModule:
    """A `fulmen_trainer.loop.TrainModule`: three stages, one schedule, one optimizer.

    Args:
        config: the run.
        model: freshly initialised; trained in place.
        program: the same model, prepared by a backend.
        shards: token shards by source.
        work: where `fork/` goes when the second stage ends.
        evaluate: measures the model every `evaluate_every` steps.
    """

    def __init__(
        self,
        config: PretrainConfig,
        model: Transformer,
        program: TrainProgram,
        shards: Mapping[str, ShardSet],
        work: Path,
        evaluate: Callable[[], BitsPerByte] | None = None,
    ) -> None:
        self._config, self.model, self._program, self._work = config, model, program, work
        self._evaluate = evaluate
        products = torch.bfloat16 if program.choices.get("dtype") == "bfloat16" else torch.float32
        self.optimizer = build_optimizer(model, config.optimizer, products=products)
        self.stage_ends = stage_ends(config.steps, config.stages.shares)
        self._samplers: list[MixtureSampler] = []
        drawn: dict[str, int] = {}
        for stage, start, end in zip(config.stages.all, (0, *self.stage_ends), self.stage_ends, strict=False):
            sampler = MixtureSampler(shards, stage.weights, config.sequence_length, config.seed, first_rows=drawn)
            drawn = sampler.rows_drawn((end - start) * config.batch_size)
            self._samplers.append(sampler)

    def batch(self, step: int) -> PackedBatch:
        """The batch of `step`, from its stage's mixture, which goes on in each source where the last one stopped."""
        stage = stage_of(step, self.stage_ends)
        start = self.stage_ends[stage - 1] if stage else 0
        return self._samplers[stage].batch(step - start, self._config.batch_size)

    def train_step(self, step: int) -> dict[str, float]:
        """One optimizer step over all micro-batches; at the end of the second stage the fork point is written."""
        config = self._config
        batch = self.batch(step)
        trained_tokens = int(batch.trained_BT.sum())
        rows = config.micro_batch_size or config.batch_size
        totals: dict[str, float] = {}
        loads: list[Tensor] = []
        for first in range(0, config.batch_size, rows):
            metrics, load_LE = self._accumulate(batch, slice(first, first + rows), trained_tokens)
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value
            if load_LE is not None:
                loads.append(load_LE)
        scale = three_stage(
            step,
            config.steps,
            warmup=config.warmup,
            shares=config.stages.shares,
            plateau=config.plateau,
            floor=config.floor,
        )
        norm = self.optimizer.step(scale)
        metrics = {
            **totals,
            "grad_norm": norm,
            "lr": config.optimizer.lr * scale,
            "stage": float(stage_of(step, self.stage_ends) + 1),
            "tokens": float(batch.tokens_BT1[:, 1:].size),
            **(_load_metrics(torch.stack(loads).mean(0)) if loads else {}),
        }
        if step + 1 == self.stage_ends[1] and math.isfinite(norm):
            self._save_fork(step + 1)
        if self._evaluate is not None and config.evaluate_every and (step + 1) % config.evaluate_every == 0:
            metrics["heldout_bits_per_byte"] = self._evaluate()["bits_per_byte"]
        return metrics

    def _accumulate(
        self, batch: PackedBatch, rows: slice, trained_tokens: int
    ) -> tuple[dict[str, float], Tensor | None]:
        """Forward and backward of some rows; their shares of the batch's losses, and the expert load.

        The language-model loss is a sum over tokens divided by the *batch's* count of trained tokens, so that no
        split into micro-batches changes it. The balance losses are statistics of a micro-batch and enter by its share
        of rows.
        """
        device = self.model.embed.weight.device
        ids_BT1 = torch.from_numpy(batch.tokens_BT1[rows]).to(device)
        weights_BT = torch.from_numpy(batch.trained_BT[rows]).to(device).float() / max(1, trained_tokens)
        with self._program.autocast():
            output = self._program.model(
                ids_BT1[:, :-1],
                positions_BT=torch.from_numpy(batch.positions_BT1[rows, :-1]).to(device),
                segments_BT=torch.from_numpy(batch.segments_BT1[rows, :-1]).to(device),
                recompute=self._config.recompute,
            )
            loss = linear_cross_entropy(
                output.hidden_BTD.flatten(0, 1),
                self.model.head_weight_VD,
                ids_BT1[:, 1:].flatten(),
                weights_BT.flatten(),
                self.model.operations.cross_entropy,
            )
        if output.router is None:
            torch.autograd.backward(loss)
            return {"loss": float(loss.detach())}, None
        model_config = self.model.config
        balance = balance_losses(output.router, model_config.balance, model_config.num_experts_per_tok)
        share = len(ids_BT1) / len(batch.tokens_BT1)
        torch.autograd.backward(loss + share * balance.total)
        metrics = {
            "loss": float(loss.detach()),
            "balance/switch": share * float(balance.switch),
            "balance/group": share * float(balance.group),
            "balance/partition": share * float(balance.partition),
        }
        return metrics, output.router.load_LE

    def _save_fork(self, step: int) -> None:
        with atomic_directory(self._work / "fork") as directory:
            save_model(self.model, directory)
            save_optimizer_state(directory, self.optimizer, {"step": step})

    def save(self, directory: Path) -> None:
        """Weights and optimizer state; the loop adds the step."""
        save_training_state(directory, self.model, self.optimizer)

    def load(self, directory: Path) -> None:
        """Read back what `save` or the fork point holds. Raises `CorruptArtefact`."""
        load_training_state(directory, self.model, self.optimizer)


def _load_metrics(load_LE: Tensor) -> dict[str, float]:
    """Load of each expert in multiples of an even share, and the largest of all."""
    relative_LE = load_LE * load_LE.shape[1]
    named = {
        f"expert_load/{layer}/{expert}": value
        for layer, row in enumerate(relative_LE.tolist())
        for expert, value in enumerate(row)
    }
    return {"load_max": float(relative_LE.max()), **named}


def _beginnings(documents: Sequence[str], characters: int) -> list[str]:
    """The same number of characters from the front of each document, about `characters` in all."""
    each = max(1, characters // max(1, len(documents)))
    return [document[:each] for document in documents]


def pretrain(
    config: PretrainConfig,
    *,
    shards: Mapping[str, ShardSet],
    tokenizer: Tokenizer,
    heldout: Sequence[str],
    work: Path,
    registry: Registry,
    display: Display | None = None,
    fork: Path | None = None,
) -> dict[str, Any]:
    """Run (or go on with) a pre-training run in `work`, and leave a model directory there.

    Args:
        config: the run.
        shards: token shards by source; the stages' weights name them.
        tokenizer: the one that made the shards; saved beside the model.
        heldout: documents to measure bits per byte on: all at the end, the beginning of each every `evaluate_every`
        steps.
        work: gets the model directory, `fork/`, `metrics.jsonl`, and `checkpoints/`, which is only needed to resume.
        registry: gives the backend, the trackers, and announces events.
        display: see `run_loop`.
        fork: the `fork/` of an earlier run of the same model and steps: only the fast-decay stage is run, from there.

    Returns:
        Measurements: held-out bits per byte and what they were taken on, tokens, seconds, parameters, the backend's
        choices.

    Raises:
        UserError: a setting is wrong, or training diverged.
        CorruptArtefact: a checkpoint cannot be read.
        KeyboardInterrupt: a signal came; the same call goes on from there.
    """
    model_config = config.resolve_model(tokenizer)
    tokenizer.check_model_vocab(model_config.vocab_size, "the [model] table")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Transformer(model_config)
    backend = registry.backend(config.backend)
    plan = TrainPlan(dtype=config.dtype, compile=config.compile, recompute=config.recompute, experts=config.experts)
    program = backend.prepare_training(model, plan)

    def evaluate(documents: Sequence[str]) -> BitsPerByte:
        return evaluate_bits_per_byte(
            model, tokenizer, documents, sequence_length=config.sequence_length, autocast=program.autocast()
        )

    sample = _beginnings(heldout, config.evaluate_characters)
    module = PretrainModule(config, model, program, shards, work, lambda: evaluate(sample))
    if fork is not None and not checkpoints(work):
        module.load(fork)
        save_checkpoint(module, work, module.stage_ends[1])
    history = run_loop(
        module,
        stage="pretrain",
        total_steps=config.steps,
        work=work,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        registry=registry,
        display=display,
        trackers=config.trackers,
    )
    result = evaluate(heldout)
    save_model(model, work)
    tokenizer.save(work)
    return {
        **{f"heldout_{name}": value for name, value in result.items()},
        "train_loss": history[-1]["loss"],
        "tokens": sum(int(record["tokens"]) for record in history),
        "seconds": sum(record["seconds"] for record in history),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "backend": backend.name,
        **program.choices,
    }
