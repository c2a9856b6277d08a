"""Does the artefact compute what the checkpoint computes? Run both on fresh prompts and compare.

Legend: T tokens of a sequence, V vocabulary, N tokens, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import load_tokenizer

GREEDY_TOKENS = 64
BATCH_SIZES = (1, 3, 8)
_CONTEXT = 384

#: Where two experts' probabilities, or two tokens' logits, are closer than this, rounding decides between them and both
#: choices are right. What follows an undecided routing cannot be compared: other experts compute something else.
_ROUTING_TIE = 1e-6
_TOKEN_TIE = 1e-5

_TEXTS = (
    "def add(a, b):\n    return a + b\n",
    "Lightning is an electrostatic discharge between a cloud and the ground.",
    "问：十二加三十等于多少？答：",
    "1 + 1 = 2, 12 + 30 = 42, 7 * 8 =",
)


def compare(model: Path, artefact: Path) -> dict[str, Any]:
    """Compare an artefact with the checkpoint it was exported from, in float32.

    Returns:
        ``max_abs_diff`` of logits over prefill chunks and decode steps of mixed batches; ``greedy_equal``, whether each
        token of the artefact's greedy answers is the checkpoint's; and what was compared: ``logits_compared`` and
        ``greedy_tokens``, ``set_aside`` of both (a router was undecided before them), ``batch_sizes``, ``seed``.

    Raises:
        UserError: the model or the artefact is missing or damaged.
    """
    network = load_model(model)
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    random = np.random.default_rng(seed)
    limits = EngineLimits(max_sequences=max(BATCH_SIZES), max_context=_CONTEXT, max_step_tokens=_CONTEXT)
    runner = OnnxRunner(artefact, limits)
    try:
        worst, compared, aside = _compare_logits(network, runner, random)
        prompts = _prompts(model, runner, random)
        greedy = SamplingParams(temperature=0, max_tokens=GREEDY_TOKENS)
        answers = generate(runner, prompts, greedy)
    finally:
        runner.close()
    right, wrong, undecided = np.sum([_judge(network, *pair) for pair in zip(prompts, answers, strict=True)], axis=0)
    return {
        "max_abs_diff": worst,
        "greedy_equal": int(wrong) == 0,
        "logits_compared": compared,
        "greedy_tokens": int(right + wrong),
        "set_aside": aside + int(undecided),
        "batch_sizes": list(BATCH_SIZES),
        "seed": seed,
    }


def _compare_logits(network: Transformer, runner: OnnxRunner, random: np.random.Generator) -> tuple[float, int, int]:
    worst, compared, aside = 0.0, 0, 0
    for size in BATCH_SIZES:
        room = runner.limits.max_context
        lengths = random.integers(min(24, room // 2), room // 2 + 1, size)
        sequences = [random.integers(0, runner.vocab_size, length).tolist() for length in lengths]
        expected = [_reference(network, tokens) for tokens in sequences]
        for index, position, logits_V in _play(runner, sequences, random):
            expected_TV, settled = expected[index]
            if position >= settled:
                aside += 1
                continue
            worst = max(worst, float(np.abs(logits_V - expected_TV[position]).max()))
            compared += 1
    return worst, compared, aside


def _play(
    runner: OnnxRunner, sequences: Sequence[Sequence[int]], random: np.random.Generator
) -> list[tuple[int, int, NDArray[np.float32]]]:
    """Run the sequences side by side in random chunks and single tokens: (sequence, position, logits) each."""
    outputs = []
    done = [0] * len(sequences)
    while any(count < len(tokens) for count, tokens in zip(done, sequences, strict=True)):
        steps = []
        budget = runner.limits.max_step_tokens
        for slot, tokens in enumerate(sequences):
            left = min(len(tokens) - done[slot], budget)
            if left:
                count = 1 if random.random() < 0.6 else int(random.integers(1, left + 1))
                steps.append(SequenceStep(slot, done[slot], tokens[done[slot] : done[slot] + count]))
                done[slot] += count
                budget -= count
        for step, logits_V in zip(steps, runner.step(steps), strict=True):
            outputs.append((step.slot, done[step.slot] - 1, logits_V))
    for slot in range(len(sequences)):
        runner.release(slot)
    return outputs


@torch.inference_mode()
def _reference(network: Transformer, tokens: Sequence[int]) -> tuple[NDArray[np.float32], int]:
    """The checkpoint's logits [T, V], and the first position from which on rounding may choose other experts."""
    output = network(torch.tensor([tokens]))
    settled = len(tokens)
    top_k = network.config.num_experts_per_tok
    if output.router is not None and top_k < network.config.num_experts:
        for logits_NE in output.router.logits:
            best_NK = logits_NE.softmax(-1).topk(top_k + 1).values
            undecided = (best_NK[:, -2] - best_NK[:, -1] < _ROUTING_TIE).nonzero()
            settled = min(settled, int(undecided[0])) if len(undecided) else settled
    logits: NDArray[np.float32] = network.logits(output.hidden_BTD)[0].numpy()
    return logits, settled


def _prompts(model: Path, runner: OnnxRunner, random: np.random.Generator) -> list[list[int]]:
    """Text, if the model has a tokenizer, and random tokens; all leave room for a whole answer."""
    longest = max(1, runner.limits.max_context - GREEDY_TOKENS)
    texts = []
    if (model / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(model)
        texts = [tokenizer.encode(text)[:longest] for text in _TEXTS]
    lengths = random.integers(1, min(longest, 64) + 1, max(BATCH_SIZES) - len(texts))
    return texts + [random.integers(0, runner.vocab_size, length).tolist() for length in lengths]


def _judge(network: Transformer, prompt: Sequence[int], answer: Sequence[int]) -> tuple[int, int, int]:
    """How many tokens of `answer` are the checkpoint's likeliest after all before them, are not, and cannot be judged.

    If all are, the checkpoint's own greedy answer is the same, by induction: one forward pass shows it.
    """
    logits_TV, settled = _reference(network, [*prompt, *answer])
    before = len(prompt) - 1
    decided = min(len(answer), max(0, settled - before))
    logits_TV = logits_TV[before : before + decided]
    chosen_T = np.take_along_axis(logits_TV, np.array(answer[:decided], np.int64)[:, None], 1)[:, 0]
    right = int(np.count_nonzero(chosen_T >= logits_TV.max(1) - _TOKEN_TIE)) if decided else 0
    return right, decided - right, len(answer) - decided
