"""What makes a fine-tuned encoder small before it is trained once more: fewer layers, fewer inner units, fewer pieces,
and weights that are rounded to 4 bits while they learn (arXiv 1910.06188).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import torch
from teacher import LONGEST, Teacher
from torch import nn
from torch.nn.utils import parametrize
from transformers import BertTokenizer

from fulmen_safety.learned.four_bits import GROUP, MOST
from fulmen_safety.learned.wordpiece import SPECIAL

_ALWAYS = ("[PAD]", *SPECIAL)


def keep_layers(model: Teacher, inner: list[int], texts: list[str]) -> None:
    """Keep as many of the first layers as there are widths in `inner`, and of each layer's inner units as many as are
    loudest on the texts: their mean size times that of what they write.
    """
    blocks = model.encoder.encoder.layer[: len(inner)]
    model.encoder.encoder.layer = blocks
    model.encoder.config.num_hidden_layers = len(inner)
    heard = [torch.zeros(block.intermediate.dense.out_features) for block in blocks]
    hooks = [
        block.intermediate.register_forward_hook(_adds_to(sum_F)) for block, sum_F in zip(blocks, heard, strict=True)
    ]
    model.scores(texts)
    for hook, block, sum_F, width in zip(hooks, blocks, heard, inner, strict=True):
        hook.remove()
        up, down = block.intermediate.dense, block.output.dense
        loud_F = sum_F * down.weight.detach().norm(dim=0)
        kept = torch.topk(loud_F, width).indices.sort().values
        print(f"{width} inner units: {loud_F[kept].sum() / loud_F.sum():.3f} of what is heard")
        block.intermediate.dense = _linear(up.weight.detach()[kept], up.bias.detach()[kept])
        block.output.dense = _linear(down.weight.detach()[:, kept], down.bias.detach())
        block.intermediate.intermediate_act_fn = nn.GELU("tanh")  # as NumPy computes it


def _adds_to(sum_F: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    def hook(_: nn.Module, __: tuple[torch.Tensor, ...], out_BTF: torch.Tensor) -> None:
        sum_F.add_(out_BTF.float().abs().sum((0, 1)))

    return hook


def keep_pieces(model: Teacher, count: int, texts: list[str]) -> list[str]:
    """Keep `SPECIAL`, the letters and digits, and of other pieces those that most texts have; return them in order.
    The others are read as shorter ones from now on.
    """
    counted: Counter[int] = Counter()
    for at in range(0, len(texts), 1000):
        found = model.tokenizer(texts[at : at + 1000], truncation=True, max_length=LONGEST)["input_ids"]
        counted.update(piece for ids in found for piece in set(ids))
    own = model.tokenizer.get_vocab()
    always = {row for piece, row in own.items() if piece in _ALWAYS or re.fullmatch("(##)?[a-z0-9]", piece)}
    others = sorted(set(own.values()) - always, key=lambda row: (-counted[row], row))
    kept = sorted(always | set(others[: count - len(always)]))
    named = {row: piece for piece, row in own.items()}
    pieces = [named[row] for row in kept]
    words = model.encoder.embeddings.word_embeddings
    words.weight = nn.Parameter(words.weight.detach()[torch.tensor(kept)].clone())
    words.num_embeddings, words.padding_idx = len(kept), None
    model.tokenizer = BertTokenizer(vocab={piece: row for row, piece in enumerate(pieces)}, do_lower_case=True)
    return pieces


class FourBits(nn.Module):
    """A matrix as `fulmen_safety.learned.four_bits` stores it; gradients pass through (arXiv 1308.3432)."""

    def forward(self, weight_NK: torch.Tensor) -> torch.Tensor:
        """Return the rounded matrix."""
        groups_NGK = weight_NK.reshape(len(weight_NK), -1, GROUP)
        scale_NG1 = (groups_NGK.abs().amax(-1, keepdim=True) / MOST).clamp_min(1e-6).half().float()
        rounded = ((groups_NGK / scale_NG1).round().clamp(-MOST, MOST) * scale_NG1).reshape(weight_NK.shape)
        return weight_NK + (rounded - weight_NK).detach()


def round_while_learning(model: Teacher) -> None:
    """Let every matrix of the encoder be rounded whenever it is used."""
    for module in _matrices(model):
        parametrize.register_parametrization(module, "weight", FourBits())


def round_for_good(model: Teacher) -> None:
    """Keep the rounded matrices, and forget what they were rounded from."""
    for module in _matrices(model):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _matrices(model: Teacher) -> list[nn.Module]:
    every = [module for module in model.encoder.modules() if isinstance(module, nn.Linear)]
    return [model.encoder.embeddings.word_embeddings, *every]


def _linear(weight_NK: torch.Tensor, bias_N: torch.Tensor) -> nn.Linear:
    made = nn.Linear(weight_NK.shape[1], weight_NK.shape[0])
    made.weight, made.bias = nn.Parameter(weight_NK.clone()), nn.Parameter(bias_N.clone())
    return made
