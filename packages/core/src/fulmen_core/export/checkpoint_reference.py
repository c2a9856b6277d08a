"""Asks a checkpoint for a `Reference`: fresh random tokens and text, in float32.

Legend: B sequences, T tokens, D width, N = B*T tokens, E experts, K experts per token, V vocabulary, G prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fulmen_core.export.reference import Reference
from fulmen_core.model.feed_forward import MixtureFeedForward
from fulmen_core.model.transformer import Transformer
from fulmen_core.tokenizer import load_tokenizer

#: Positions of the longest sequence, where no window asks for more.
CONTEXT = 384
#: Where two experts' scores are closer than this, rounding decides between them, and both choices are right. What
#: follows cannot be compared: other experts compute something else.
ROUTING_TIE = 1e-6

_SEQUENCES = 12
_LONGEST = 2048  # of a sequence that is to leave a window
_STORED = 4 << 20  # bytes of logits, about
_PROMPTS, _PROMPT_TOKENS, _ANSWER_TOKENS = 8, 12, 32
_TEXTS = (
    "def add(a, b):\n    return a + b\n",
    "Lightning is an electrostatic discharge between a cloud and the ground.",
    "问：十二加三十等于多少？答：",
    "1 + 1 = 2, 12 + 30 = 42, 7 * 8 =",
)


@torch.inference_mode()
def ask_checkpoint(network: Transformer, directory: Path, max_context: int | None = None) -> Reference:
    """What `network`, the model of `directory`, answers to fresh prompts.

    Args:
        network: in float32, on the CPU.
        directory: whose tokenizer, if there is one, encodes the prompts that are text.
        max_context: of the artefact; None: the model's.
    """
    config = network.config
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    random = np.random.default_rng(seed)
    room = min(max_context or config.max_position_embeddings, config.max_position_embeddings)
    usual = min(room, CONTEXT)
    lengths = random.integers(min(24, usual // 2), usual // 2 + 1, _SEQUENCES).tolist()
    windows = [layer.window for layer in network.plan if layer.window is not None]
    leaves = max(windows, default=0) * 5 // 4
    if max(lengths) < leaves <= min(room, _LONGEST):
        lengths[0] = leaves
    sequences = [random.integers(0, config.vocab_size, length) for length in lengths]

    each = max(2, _STORED // (4 * config.vocab_size) // _SEQUENCES)
    positions, logits, margins = [], [], []
    for number, tokens in enumerate(sequences):
        hidden_BTD, margin_BT = _run(network, torch.from_numpy(tokens)[None])
        undecided = (margin_BT[0] < ROUTING_TIE).nonzero()
        settled = int(undecided[0]) if len(undecided) else len(tokens)
        chosen = np.sort(random.permutation(settled)[:each])
        if settled == len(tokens):
            chosen[-1] = settled - 1
        positions += [(number, int(position)) for position in chosen]
        logits.append(network.logits(hidden_BTD[0, chosen]).numpy())
        margins.append(margin_BT[0, chosen].numpy())
    prompts = _prompts(directory, config.vocab_size, min(_PROMPT_TOKENS, max(1, room - 1)), random)
    answers, decided_by = _greedy(network, prompts, min(_ANSWER_TOKENS, room - len(prompts[0])))
    return Reference(
        tokens=np.concatenate(sequences).astype(np.int32),
        lengths=np.array(lengths, np.int32),
        positions_P2=np.array(positions, np.int32).reshape(-1, 2),
        logits_PV=np.concatenate(logits),
        routing_margin_P=np.concatenate(margins).astype(np.float32),
        prompts=np.array(prompts, np.int32),
        answers_GA=answers.astype(np.int32),
        margin_GA=decided_by.astype(np.float32),
        seed=np.array(seed, np.int64),
    )


def _run(network: Transformer, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [B, T, D], and the smallest routing margin of all layers at each token [B, T]."""
    output = network(tokens_BT)
    margin_N = torch.ones(tokens_BT.numel())
    routers = [block.ffn.router for block in network.blocks if isinstance(block.ffn, MixtureFeedForward)]
    for router, logits_NE in zip(routers, output.router.logits if output.router is not None else (), strict=True):
        if router.top_k == logits_NE.shape[1]:
            continue
        scores_NE = logits_NE.softmax(-1) if router.score == "softmax" else logits_NE.sigmoid()
        best = (scores_NE if router.bias is None else scores_NE + router.bias).topk(router.top_k + 1).values
        margin_N = torch.minimum(margin_N, best[:, -2] - best[:, -1])
    return output.hidden_BTD, margin_N.view(tokens_BT.shape)


def _greedy(network: Transformer, prompts: Sequence[Sequence[int]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Greedy answers [G, count], and by how much each token beat the next: negative after an expert was tossed for."""
    tokens_GT = torch.tensor(prompts)
    margins, settled_G = [], torch.ones(len(prompts), dtype=torch.bool)
    for _ in range(count):
        hidden_GTD, routing_GT = _run(network, tokens_GT)
        settled_G &= (routing_GT >= ROUTING_TIE).all(1)
        best = network.logits(hidden_GTD[:, -1]).topk(2)
        margins.append(torch.where(settled_G, best.values[:, 0] - best.values[:, 1], -1.0))
        tokens_GT = torch.cat((tokens_GT, best.indices[:, :1]), 1)
    return tokens_GT[:, len(prompts[0]) :].numpy(), torch.stack(margins, 1).numpy()


def _prompts(directory: Path, vocab_size: int, length: int, random: np.random.Generator) -> list[list[int]]:
    """Text, if there is a tokenizer, and random tokens; all of one length, so that they run as one batch."""
    texts: list[list[int]] = []
    if (directory / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(directory)
        texts = [tokenizer.encode(text) for text in _TEXTS]
    texts += [[] for _ in range(_PROMPTS - len(texts))]
    fillers = random.integers(0, vocab_size, (_PROMPTS, length)).tolist()
    return [(filler + text)[-length:] for filler, text in zip(fillers, texts, strict=True)]
