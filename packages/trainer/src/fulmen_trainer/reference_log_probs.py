"""The reference's log-probabilities of a preference set: computed once before an iteration, then read from disk.

So the reference model takes no memory and no forward pass while the policy trains (report section 4.2.3).

Legend: P pairs, M answers (two a pair, chosen first).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fulmen_core.files import hash_tree
from fulmen_core.model.checkpoint import load_model
from fulmen_trainer.log_probs import sample_log_probs, token_log_probs
from fulmen_trainer.packing_samples import Sample, pack
from fulmen_trainer.post_training import PostTrainingConfig, RowTensors, head_of

if TYPE_CHECKING:
    from fulmen_core.backend import TrainProgram
    from fulmen_core.model.transformer import Transformer
    from fulmen_core.registry import Registry
    from fulmen_trainer.preferences import EncodedPairs


@torch.no_grad()
def answer_log_probs(
    model: Transformer, program: TrainProgram, samples: Sequence[Sample], config: PostTrainingConfig
) -> Tensor:
    """Log-probability of each sample's scored tokens, summed: ``[M]``, without a gradient."""
    sums_M: Tensor | None = None
    for packed in pack(samples, config.sequence_length, config.rows_per_micro_batch, together=2):
        rows = RowTensors.of(packed, model.embed.weight.device)
        with program.autocast():
            hidden_BTD = program.model(
                rows.tokens_BT, positions_BT=rows.positions_BT, segments_BT=rows.segments_BT
            ).hidden_BTD
        log_probs_N = token_log_probs(hidden_BTD, rows.scored_N, rows.targets_N, head_of(model))
        part_M = sample_log_probs(log_probs_N, rows.sample_N, len(samples))
        sums_M = part_M if sums_M is None else sums_M + part_M
    assert sums_M is not None
    return sums_M


def cached_reference(
    reference: Path, pairs: EncodedPairs, config: PostTrainingConfig, registry: Registry, cache: Path
) -> Tensor:
    """Log-probabilities ``[P, 2]`` of (chosen, rejected) under the model in `reference`, from `cache` if it has them.

    The cache is bound by a hash to the reference's files and to the token ids; one of anything else is computed anew.
    """
    samples = [Sample.next_token(*answer) for answer in pairs.answers]
    key = hashlib.sha256(
        json.dumps([hash_tree(reference), pairs.answers, config.dtype, config.backend]).encode()
    ).hexdigest()
    if cache.exists():
        try:
            with safe_open(cache, framework="pt") as file:
                if (file.metadata() or {}).get("key") == key:
                    cached_P2: Tensor = file.get_tensor("log_probs_P2")
                    return cached_P2
        except (SafetensorError, OSError):
            pass  # damaged: it costs one forward pass to make again
    model = load_model(reference).requires_grad_(False)
    log_probs_P2 = answer_log_probs(model, config.prepare(model, registry), samples, config).view(-1, 2).cpu()
    temporary = cache.with_name(f".{cache.name}.tmp")
    save_file({"log_probs_P2": log_probs_P2}, temporary, metadata={"key": key})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(cache)
    return log_probs_P2
