"""The reward model (report section 4.2.1): a trained trunk and one linear unit on the last token, Bradley-Terry loss.

Both phases, preference pre-training (PMP) and human-feedback fine-tuning (HFFT), are calls of `train_reward`: the
second starts from the directory that the first left. A reward directory is a model directory and
``reward_head.safetensors``.

Legend: B rows, T positions, D model width, M samples of the batch (two a pair), P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.tokenizer import Tokenizer, load_tokenizer
from fulmen_trainer.conversations import answer_tokens, prompt_text
from fulmen_trainer.objectives import bradley_terry_loss
from fulmen_trainer.packing_samples import PackedRows, Sample, pack
from fulmen_trainer.post_training import ObjectiveModule, PostTrainingConfig, RowTensors, open_model, run_stage
from fulmen_trainer.preferences import EncodedPairs, encode_pairs, read_pairs
from fulmen_trainer.records import Message
from fulmen_trainer.sample_order import batch_indices

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.model.transformer import Transformer
    from fulmen_core.registry import Registry
    from fulmen_trainer.display import Display

HEAD_FILE = "reward_head.safetensors"


class RewardConfig(PostTrainingConfig):
    """Settings of one phase."""

    margin: float = Field(0.0, ge=0)  # Llama 2's (arXiv 2307.09288); the report has none
    heldout_share: float = Field(0.1, ge=0, lt=1)  # of the pairs, never trained on, for `accuracy`


class RewardModel(nn.Module):
    """A transformer that answers with one number.

    Attributes:
        trunk: the transformer; its language-model head is unused.
        head: ``[D] -> [1]``, without bias: Bradley-Terry sees differences only.
        tokenizer: the trunk's.
    """

    def __init__(self, trunk: Transformer, tokenizer: Tokenizer, seed: int = 0) -> None:
        super().__init__()
        self.trunk, self.tokenizer = trunk, tokenizer
        width = trunk.config.hidden_size
        self.head = nn.Linear(width, 1, bias=False)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, std=(width + 1) ** -0.5, generator=generator)

    @classmethod
    def load(cls, directory: Path) -> RewardModel:
        """Read a reward directory.

        Raises:
            UserError: the directory is none, for example a plain model.
            CorruptArtefact: a file is truncated or does not fit.
        """
        if not (directory / HEAD_FILE).is_file():
            raise UserError(f"{directory} is no reward model", remedy="train one with `fulmen reward`")
        model = cls(load_model(directory), load_tokenizer(directory))
        try:
            head = load_file(directory / HEAD_FILE)
        except (SafetensorError, OSError) as error:
            raise CorruptArtefact(
                f"the reward head cannot be read ({error})", where=str(directory / HEAD_FILE), remedy="train it again"
            ) from error
        if head.keys() != {"weight"} or head["weight"].shape != model.head.weight.shape:
            raise CorruptArtefact(
                "the reward head does not fit the trunk", where=str(directory / HEAD_FILE), remedy="train it again"
            )
        model.head.load_state_dict(head)
        return model

    def save(self, directory: Path) -> None:
        """Write a reward directory into an existing folder."""
        save_model(self.trunk, directory)
        self.tokenizer.save(directory)
        save_file({"weight": self.head.weight.detach().contiguous()}, directory / HEAD_FILE)

    def rewards(self, hidden_BTD: Tensor, rows: RowTensors, samples: int) -> Tensor:
        """Rewards ``[M]`` of the samples in these rows, 0 for all others; the head works in its own precision."""
        last_ND = hidden_BTD.flatten(0, 1).index_select(0, rows.scored_N).to(self.head.weight.dtype)
        rewards_N: Tensor = self.head(last_ND).squeeze(-1)
        return rewards_N.new_zeros(samples).index_copy(0, rows.sample_N, rewards_N)

    @torch.no_grad()
    def score(
        self, answered: Sequence[tuple[Sequence[Message], str]], *, sequence_length: int = 512, rows: int = 16
    ) -> NDArray[np.float32]:
        """Rewards of answers to prompts, float32, in order. Too long a prompt loses its beginning."""
        context = self.trunk.config.max_position_embeddings
        samples = [
            Sample.last_token(answer_tokens(self.tokenizer, prompt, answer)[0][-context:])
            for prompt, answer in answered
        ]
        scores = np.zeros(len(samples), np.float32)
        for packed in pack(samples, max([sequence_length, *map(len, samples)]), rows) if samples else []:
            tensors = RowTensors.of(packed, self.head.weight.device)
            hidden_BTD = self.trunk(
                tensors.tokens_BT, positions_BT=tensors.positions_BT, segments_BT=tensors.segments_BT
            ).hidden_BTD
            rewards_N = self.rewards(hidden_BTD, tensors, len(samples))[tensors.sample_N]
            scores[packed.sample_N] = rewards_N.float().cpu().numpy()
        return scores


class PreferenceRanking:
    """The Bradley-Terry objective over the pairs of a step."""

    def __init__(self, model: RewardModel, pairs: EncodedPairs, config: RewardConfig) -> None:
        self._model, self._config = model, config
        self._samples = [Sample.last_token(token_ids) for token_ids, _ in pairs.answers]

    def rows(self, step: int) -> list[PackedRows]:
        """The pairs of `step`; both answers of a pair share a row."""
        pairs = batch_indices(len(self._samples) // 2, self._config.batch_size, step, self._config.seed)
        batch = [self._samples[2 * pair + member] for pair in pairs for member in range(2)]
        return pack(batch, self._config.sequence_length, self._config.rows_per_micro_batch, together=2)

    def loss(self, hidden_BTD: Tensor, rows: RowTensors, step: int) -> tuple[Tensor, dict[str, float]]:
        """See the class; measures ``accuracy`` and ``reward_margin``."""
        del step  # the rows say all there is to know
        pairs = self._config.batch_size
        present_P = (rows.sample_N // 2).unique()  # type: ignore[no-untyped-call]
        rewards_P2 = self._model.rewards(hidden_BTD, rows, 2 * pairs).view(pairs, 2)[present_P]
        chosen_P, rejected_P = rewards_P2.unbind(1)
        margin_P = (chosen_P - rejected_P).detach()
        measured = {
            "accuracy": float((margin_P > 0).sum()) / pairs,
            "reward_margin": float(margin_P.sum()) / pairs,
        }
        return bradley_terry_loss(chosen_P, rejected_P, pairs, self._config.margin), measured


def split_pairs(count: int, heldout_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the pairs to train on and of those held out, chosen by `seed`; at least one stays for training."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    heldout = min(round(count * heldout_share), count - 1)
    return sorted(order[heldout:]), sorted(order[:heldout])


def train_reward(
    start: Path,
    data: Path,
    *,
    config: RewardConfig,
    registry: Registry,
    work: Path,
    display: Display | None = None,
) -> dict[str, Any]:
    """Train one phase and leave a reward directory in `work`.

    Args:
        start: a model directory (a new head is drawn) or a reward directory (its head goes on).
        data: JSON Lines of pairs, see `read_pairs`.
        config: settings.
        registry: where the backend and the trackers come from.
        work: an existing folder that survives a kill; called again with it, training goes on bit for bit.
        display: where progress is shown.

    Returns:
        ``loss``, ``tokens``, ``seconds``, ``pairs``, ``dropped_long``, ``heldout_pairs``, and ``heldout_accuracy``: the
        share of held-out pairs whose chosen answer gets the higher reward (absent if none is held out).

    Raises:
        UserError: see `read_pairs`, `encode_pairs` and `open_model`.
    """
    _, tokenizer = open_model(start, config.sequence_length)
    pairs = read_pairs(data)
    train, heldout = split_pairs(len(pairs), config.heldout_share, config.seed)
    encoded = encode_pairs([pairs[index] for index in train], tokenizer, config.sequence_length, str(data))
    if (start / HEAD_FILE).is_file():
        model = RewardModel.load(start)
    else:
        model = RewardModel(load_model(start), tokenizer, config.seed)
    program = config.prepare(model.trunk, registry)
    module = ObjectiveModule(model, model.trunk, program, PreferenceRanking(model, encoded, config), config)
    measured = run_stage(module, stage="reward", config=config, work=work, registry=registry, display=display)
    model.save(work)
    result: dict[str, Any] = {
        **measured,
        "pairs": len(encoded),
        "dropped_long": encoded.dropped_long,
        "heldout_pairs": len(heldout),
        **program.choices,
    }
    if heldout:
        sides = [[(pairs[i].prompt, getattr(pairs[i], side)) for i in heldout] for side in ("chosen", "rejected")]
        result["heldout_accuracy"] = float((model.score(sides[0]) > model.score(sides[1])).mean())
    return result


def guarded_rewards(
    rewards: NDArray[np.float64],
    answered: Sequence[tuple[Sequence[Message], str]],
    guard: Guard,
    penalty_weight: float,
) -> NDArray[np.float64]:
    """RAISE-2's reward engineering (report section 6): ``r' = r_RM - penalty_weight · penalty`` for each answer.

    The penalty is `Guard.reward_penalty`, in [0, 1], which also judges what is served: training and serving agree.
    """
    penalties = [guard.reward_penalty(prompt_text(prompt), answer) for prompt, answer in answered]
    return rewards - penalty_weight * np.asarray(penalties, np.float64)
