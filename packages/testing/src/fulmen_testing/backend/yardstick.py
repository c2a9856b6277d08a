"""What fewer bits must cost: the checkpoint's own results when its weights, or all of it, are rounded to them.

So a tolerance is no figure that suits one model: it is what plain rounding does to this one, on the same tokens.

Legend: O outputs, I inputs, G groups of inputs, N inputs of a group, T positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.experts import Experts
from fulmen_testing.backend.bench import COARSE_TIE, Model
from fulmen_testing.player import Judgement, Sequence, judge
from fulmen_testing.reference import Reference

#: Inputs that share a scale, and the largest whole number of a weight.
_STEPS = {"int8": (128, 127), "int4": (32, 7)}


def rounded(model: Model, precision: str, sequences: list[Sequence]) -> Judgement:
    """Judge what the checkpoint gives, rounded to `precision`, for the tokens of these sequences.

    Args:
        precision: a dtype, in which all is computed, or a quantisation, to which the weights of products are rounded.
    """
    if precision in ("float16", "bfloat16"):
        network = load_model(model.checkpoint, getattr(torch, precision))
    else:
        network = load_model(model.checkpoint, torch.float64)
        _round_weights(network, precision)
    coarse = Reference(network)
    played = []
    for one in sequences:
        if one.logits:
            logits_TV = coarse.logits(one.tokens)[0].astype("float32")
            played.append(Sequence(0, tokens=one.tokens, logits={at: logits_TV[at] for at in one.logits}))
    return judge(model.reference(COARSE_TIE), played)


@torch.no_grad()
def _round_weights(network: nn.Module, precision: str) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(_nearest(module.weight, precision))
        elif isinstance(module, Experts):
            module.gate_up_EGD.copy_(_nearest(module.gate_up_EGD, precision))
            module.down_EFD.copy_(_nearest(module.down_EFD.transpose(1, 2), precision).transpose(1, 2))


def _nearest(weight_OI: Tensor, precision: str) -> Tensor:
    if precision == "fp8":
        scale_O1 = weight_OI.abs().amax(-1, keepdim=True) / 448
        return (weight_OI / scale_O1).to(torch.float8_e4m3fn).to(weight_OI.dtype) * scale_O1
    group, largest = _STEPS[precision]
    inputs = weight_OI.shape[-1]
    size = group if inputs % group == 0 else inputs
    weight_OGN = torch.unflatten(weight_OI, -1, (-1, size))
    scale_OG1 = (weight_OGN.abs().amax(-1, keepdim=True) / largest).clamp_min(1e-12)
    rounded_OGN: Tensor = (weight_OGN / scale_OG1).round() * scale_OG1
    return rounded_OGN.flatten(-2)
