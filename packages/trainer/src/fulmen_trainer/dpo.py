"""Direct preference optimisation (report section 4.2.3, arXiv 2305.18290): one offline iteration, then online rounds.

In: a fine-tuned model, preference pairs and, for online rounds, task items and a judge. Out: a model directory.

Each iteration's reference is the model it starts from; its log-probabilities are cached before the first step. Chosen
and rejected answer are packed into one row, each behind its own copy of the prompt: rows stay contiguous for the window
layers, and a short prompt read twice costs less than a tree mask would. Layout of the work folder::

    work/checkpoints/offline/      everything of an iteration: pairs.jsonl, reference.safetensors, checkpoints/, model/
    work/checkpoints/round-1/      online: its pairs are sampled, seeded and stored before training starts
    work/*                         at the end: the last model, metrics.jsonl of all iterations, the online pairs

Legend: B rows, T positions, D model width, N scored positions, M answers (two a pair), P pairs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_directory, atomic_write_json, atomic_write_text, read_json
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_trainer.conversations import scored_counts
from fulmen_trainer.log_probs import sample_log_probs, token_log_probs
from fulmen_trainer.objectives import dpo_loss, dpo_margins, fine_tuning_loss, sample_weights
from fulmen_trainer.packing_samples import PackedRows, Sample, pack
from fulmen_trainer.pair_building import PAIRS_FILE, Judge, PairConfig, sample_pairs
from fulmen_trainer.post_training import ObjectiveModule, PostTrainingConfig, RowTensors, head_of, open_model, run_stage
from fulmen_trainer.preferences import EncodedPairs, encode_pairs, read_pairs
from fulmen_trainer.reference_log_probs import cached_reference
from fulmen_trainer.sample_order import batch_indices
from fulmen_trainer.trackers import read_metrics

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.model.transformer import Transformer
    from fulmen_core.registry import Registry
    from fulmen_core.tokenizer import Tokenizer
    from fulmen_trainer.display import Display
    from fulmen_trainer.reward import RewardModel


class DPOConfig(PostTrainingConfig):
    """Settings of every iteration; `total_steps` is the length of one."""

    beta: float = Field(0.1, gt=0)  # strength of the tie to the reference; not in the report
    nll_weight: float = Field(0.1, ge=0)  # of the fine-tuning loss on the chosen answers, which keeps what SFT taught
    online_rounds: int = Field(1, ge=0)  # the report has 2
    online_prompts: int = Field(256, ge=1)  # prompts of a round, at most
    pairs: PairConfig = PairConfig()


class DirectPreference:
    """The objective ``-log sigmoid(beta·(dlogp_chosen - dlogp_rejected)) + nll_weight·NLL(chosen)``, mean over pairs.

    Args:
        model: the policy.
        pairs: encoded pairs.
        reference_P2: log-probabilities of (chosen, rejected) under the reference.
        config: settings.
    """

    def __init__(self, model: Transformer, pairs: EncodedPairs, reference_P2: Tensor, config: DPOConfig) -> None:
        self._model, self._reference_P2, self._config = model, reference_P2, config
        self._samples = [Sample.next_token(*answer) for answer in pairs.answers]
        self._tokens = scored_counts(self._samples)

    def _pairs(self, step: int) -> Tensor:
        config = self._config
        return torch.from_numpy(batch_indices(len(self._samples) // 2, config.batch_size, step, config.seed))

    def rows(self, step: int) -> list[PackedRows]:
        """The pairs of `step`; both answers of a pair share a row."""
        batch = [self._samples[2 * pair + member] for pair in self._pairs(step).tolist() for member in range(2)]
        return pack(batch, self._config.sequence_length, self._config.rows_per_micro_batch, together=2)

    def loss(self, hidden_BTD: Tensor, rows: RowTensors, step: int) -> tuple[Tensor, dict[str, float]]:
        """See the class; measures the implicit rewards: ``reward_margin``, ``accuracy``, ``chosen_reward``, ``nll``."""
        count = self._config.batch_size
        pairs_P = self._pairs(step)
        log_probs_N = token_log_probs(hidden_BTD, rows.scored_N, rows.targets_N, head_of(self._model))
        present_P = (rows.sample_N // 2).unique()  # type: ignore[no-untyped-call]
        policy_P2 = sample_log_probs(log_probs_N, rows.sample_N, 2 * count).view(count, 2)[present_P]
        reference_P2 = self._reference_P2[pairs_P[present_P.cpu()]].to(policy_P2.device)
        loss = dpo_loss(policy_P2, reference_P2, self._config.beta, count)
        chosen_P, rejected_P = dpo_margins(policy_P2.detach(), reference_P2, self._config.beta)
        weights_P = sample_weights(torch.from_numpy(self._tokens[2 * pairs_P.numpy()])).to(policy_P2.device)
        is_chosen_N = rows.sample_N % 2 == 0
        nll = fine_tuning_loss(log_probs_N[is_chosen_N], rows.sample_N[is_chosen_N] // 2, weights_P)
        return loss + self._config.nll_weight * nll, {
            "reward_margin": float((chosen_P - rejected_P).sum()) / count,
            "accuracy": float((chosen_P > rejected_P).sum()) / count,
            "chosen_reward": float(chosen_P.sum()) / count,
            "nll": float(nll.detach()),
        }


@dataclass(frozen=True)
class OnlineInputs:
    """What online rounds need beside the model.

    Attributes:
        items: task items whose prompts are answered.
        reward_model: part of the judge; None lets the verifiers judge alone.
        guard: RAISE-2's penalty; None leaves it out.
    """

    items: Sequence[Mapping[str, Any]]
    reward_model: RewardModel | None = None
    guard: Guard | None = None


def align(
    start: Path,
    data: Path,
    *,
    config: DPOConfig,
    registry: Registry,
    work: Path,
    online: OnlineInputs | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Align the model in `start`: offline on the pairs in `data`, then ``config.online_rounds`` online rounds.

    Args:
        start: model directory, with its tokenizer.
        data: JSON Lines of pairs, see `read_pairs`.
        config: settings.
        registry: where backend, verifiers and trackers come from.
        work: an existing folder that survives a kill; called again with it, training goes on bit for bit.
        online: needed if there is an online round.
        display: where progress is shown.

    Returns:
        ``iterations``: for each its name and measurements, with what `build_pairs` counted for online ones.

    Raises:
        UserError: online rounds without `online`, an online round that yields no pair, or see `read_pairs`.
    """
    if config.online_rounds and online is None:
        raise UserError("online rounds need prompts", remedy="give task items, or set online_rounds=0")
    _, tokenizer = open_model(start, config.sequence_length)
    iterations: list[dict[str, Any]] = []
    current = start
    for round_number in range(config.online_rounds + 1):
        name = f"round-{round_number}" if round_number else "offline"
        folder = work / "checkpoints" / name
        folder.mkdir(parents=True, exist_ok=True)
        sampled: dict[str, float] = {}
        pairs_file = data
        if round_number:
            assert online is not None
            pairs_file, sampled = _online_pairs(current, online, config, registry, folder, round_number)
        measured = _iterate(current, pairs_file, config, registry, folder, display, f"dpo {name}", tokenizer)
        iterations.append({"name": name, **measured, **{f"sampled_{key}": value for key, value in sampled.items()}})
        current = folder / "model"
    _publish(work, current, tokenizer, [str(iteration["name"]) for iteration in iterations])
    return {"iterations": iterations}


def _online_pairs(
    policy: Path,
    online: OnlineInputs,
    config: DPOConfig,
    registry: Registry,
    folder: Path,
    round_number: int,
) -> tuple[Path, dict[str, float]]:
    """Sample and judge once, and keep the pairs: whoever resumes trains on the same ones."""
    counts_file = folder / "sampled.json"
    if not counts_file.exists():  # written last
        count = min(config.online_prompts, len(online.items))
        items = [online.items[index] for index in batch_indices(len(online.items), count, round_number, config.seed)]
        judge = Judge(registry, config.pairs, online.reward_model, online.guard)
        seed = config.seed + round_number
        counts = sample_pairs(policy, items, judge, seed=seed, work=folder, backend=config.backend)
        atomic_write_json(counts_file, counts)
    sampled: dict[str, float] = read_json(counts_file, "sampling record")
    return folder / PAIRS_FILE, sampled


def _iterate(
    start: Path,
    data: Path,
    config: DPOConfig,
    registry: Registry,
    folder: Path,
    display: Display | None,
    stage: str,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """One iteration: reference, training, model; what is done already is not done again."""
    done = folder / "measured.json"
    if done.exists():
        finished: dict[str, Any] = read_json(done, "iteration record")
        return finished
    encoded = encode_pairs(read_pairs(data), tokenizer, config.sequence_length, str(data))
    reference_P2 = cached_reference(start, encoded, config, registry, folder / "reference.safetensors")
    policy = load_model(start)
    program = config.prepare(policy, registry)
    module = ObjectiveModule(policy, policy, program, DirectPreference(policy, encoded, reference_P2, config), config)
    measured: dict[str, Any] = dict(
        run_stage(module, stage=stage, config=config, work=folder, registry=registry, display=display)
    )
    measured |= {"pairs": len(encoded), "dropped_long": encoded.dropped_long, **program.choices}
    with atomic_directory(folder / "model") as model:
        save_model(policy, model)
        tokenizer.save(model)
    atomic_write_json(done, measured)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return measured


def _publish(work: Path, model: Path, tokenizer: Tokenizer, names: Sequence[str]) -> None:
    """Put the last model, all measurements and the online pairs where they stay."""
    lines: list[str] = []
    for name in names:
        folder = work / "checkpoints" / name
        lines += [json.dumps({"iteration": name, **record}) for record in read_metrics(folder / "metrics.jsonl")]
        if (folder / PAIRS_FILE).exists():
            shutil.copyfile(folder / PAIRS_FILE, work / f"pairs-{name}.jsonl")
    atomic_write_text(work / "metrics.jsonl", "".join(line + "\n" for line in lines))
    save_model(load_model(model), work)
    tokenizer.save(work)
