"""The network equals a plain float64 reference, written from the formulas: loops over queries, heads and experts.

That includes the gradient of every weight, with and without recomputation; so also of K and V that two layers share.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.transformer import Transformer

SMALL: dict[str, Any] = {
    "vocab_size": 29,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "layer_pattern": "SF",
    "sliding_window": 3,
    "kv_share": 2,
    "intermediate_size": 10,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "rope_theta": 100.0,
    "initializer_range": 0.4,
    "balance": BalanceConfig(expert_groups=3, partitions=2),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "window and shared K/V": {},
    "packed documents": {},
    "shared experts, a leading dense layer": {"num_shared_experts": 2, "num_dense_layers": 1},
    "no QK-norm, untied head, plain top-k weights": {
        "qk_norm": False,
        "tie_word_embeddings": False,
        "norm_topk_prob": False,
    },
    "dense, three full layers on one K/V": {"num_experts": 0, "layer_pattern": "F", "kv_share": 3},
}


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + 1e-6) * weight


def rotated(x: Tensor, position: int, theta: float) -> Tensor:
    half = len(x) // 2
    out: list[Tensor] = [x[0]] * len(x)
    for j in range(half):
        angle = position * theta ** (-j / half)
        out[j] = x[j] * math.cos(angle) - x[j + half] * math.sin(angle)
        out[j + half] = x[j + half] * math.cos(angle) + x[j] * math.sin(angle)
    return torch.stack(out)


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    g = gate @ x
    return down @ (g * torch.sigmoid(g) * (up @ x))


def reference(
    model: Transformer, config: ModelConfig, tokens: list[int], positions: list[int], ids: list[int]
) -> Tensor:
    """Logits [T, V] of one row."""
    weights = dict(model.named_parameters())
    h, heads, kv_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    xs = [weights["embed.weight"][token] for token in tokens]
    fulls: list[int] = []  # the full layers so far
    kept: dict[int, tuple[list[list[Tensor]], list[list[Tensor]]]] = {}
    for layer in range(config.num_hidden_layers):
        w = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"blocks.{layer}.")}
        full = config.layer_pattern[layer % len(config.layer_pattern)] == "F"
        source = layer
        if full:
            if len(fulls) % config.kv_share:
                source = fulls[len(fulls) // config.kv_share * config.kv_share]
            fulls.append(layer)
        normed = [rms(x, w["attention_norm.weight"]) for x in xs]

        def split(
            x: Tensor, matrix: Tensor, norm: str | None, position: int, w: Mapping[str, Tensor] = w
        ) -> list[Tensor]:
            parts = list(torch.split(matrix @ x, h))
            if norm is None:
                return parts
            if config.qk_norm:
                parts = [rms(part, w[norm]) for part in parts]
            return [rotated(part, position, config.rope_theta) for part in parts]

        if source == layer:
            k_matrix, v_matrix = torch.split(w["attention.kv_proj.weight"], kv_heads * h)
            kept[layer] = (
                [split(x, k_matrix, "attention.k_norm.weight", p) for x, p in zip(normed, positions, strict=True)],
                [split(x, v_matrix, None, p) for x, p in zip(normed, positions, strict=True)],
            )
        ks, vs = kept[source]
        attended = []
        for t, (x, position) in enumerate(zip(normed, positions, strict=True)):
            seen = [s for s in range(t + 1) if ids[s] == ids[t] and (full or t - s < config.sliding_window)]
            heads_out = []
            for n, q in enumerate(split(x, w["attention.q_proj.weight"], "attention.q_norm.weight", position)):
                kv = n * kv_heads // heads
                scores = torch.stack([q @ ks[s][kv] / math.sqrt(h) for s in seen])
                share = torch.exp(scores) / torch.exp(scores).sum()
                heads_out.append(
                    sum((a * vs[s][kv] for a, s in zip(share, seen, strict=True)), torch.zeros(h).double())
                )
            attended.append(xs[t] + w["attention.o_proj.weight"] @ torch.cat(heads_out))
        xs = [x + feed_forward(rms(x, w["ffn_norm.weight"]), w, config) for x in attended]
    final = [rms(x, weights["norm.weight"]) for x in xs]
    head = weights["embed.weight"] if config.tie_word_embeddings else weights["head.weight"]
    return torch.stack([head @ x for x in final])


def feed_forward(x: Tensor, w: Mapping[str, Tensor], config: ModelConfig) -> Tensor:
    def dense(name: str) -> Tensor:
        gate, up = w[f"{name}.gate_up.weight"].chunk(2)
        return swiglu(x, gate, up, w[f"{name}.down.weight"])

    if "ffn.router.weight" not in w:
        return dense("ffn")
    scores = torch.exp(w["ffn.router.weight"] @ x)
    probabilities = scores / scores.sum()
    chosen = sorted(range(config.num_experts), key=lambda e: -probabilities[e].item())[: config.num_experts_per_tok]
    total = sum(probabilities[e] for e in chosen) if config.norm_topk_prob else 1.0
    y = torch.zeros_like(x)
    for e in chosen:
        gate, up = w["ffn.experts.gate_up_EGD"][e].chunk(2)
        y = y + probabilities[e] / total * swiglu(x, gate, up, w["ffn.experts.down_EFD"][e].T)
    return y + dense("ffn.shared") if config.num_shared_experts else y


@pytest.fixture(params=VARIANTS, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Transformer, Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """A model, its inputs, and the reference's logits and gradients for them."""
    torch.manual_seed(11)
    config = ModelConfig(**SMALL | VARIANTS[request.param])
    model = Transformer(config).double()
    tokens_BT = torch.randint(0, config.vocab_size, (2, 9))
    positions_BT = torch.arange(9).repeat(2, 1)
    segments_BT = torch.zeros(2, 9, dtype=torch.int64)
    if request.param == "packed documents":
        segments_BT[0, 4:] = 1
        positions_BT[0, 4:] -= 4
    rows = zip(tokens_BT.tolist(), positions_BT.tolist(), segments_BT.tolist(), strict=True)
    logits_BTV = torch.stack([reference(model, config, *row) for row in rows])
    torch.autograd.backward(objective(logits_BTV))
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return model, tokens_BT, positions_BT, segments_BT, logits_BTV.detach(), gradients


def objective(logits_BTV: Tensor) -> Tensor:
    ramp = torch.linspace(-1, 1, logits_BTV.numel(), dtype=torch.float64).view_as(logits_BTV)
    return (logits_BTV * ramp).sum() + logits_BTV.logsumexp(-1).sum()


@pytest.mark.parametrize("recompute", ["none", "experts", "blocks"])
@pytest.mark.parametrize("experts", ["grouped", "dense"])
def test_logits_and_all_gradients_equal_the_reference(case: Any, experts: Any, recompute: Any) -> None:
    model, tokens_BT, positions_BT, segments_BT, logits_BTV, gradients = case
    model.set_experts_implementation(experts)
    model.zero_grad()

    output = model(tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT, recompute=recompute)
    ours_BTV = model.logits(output.hidden_BTD)
    torch.autograd.backward(objective(ours_BTV))

    torch.testing.assert_close(ours_BTV, logits_BTV, rtol=1e-9, atol=1e-9)
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-8, atol=1e-9, msg=name)


def test_a_borrowing_layer_owns_no_key_or_value_weights_and_its_owner_learns_from_both() -> None:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SMALL)).double()
    owner, borrower = model.block(1).attention, model.block(3).attention
    assert borrower.kv_proj is None
    assert borrower.k_norm is None
    assert not [name for name in model.state_dict() if name.startswith("blocks.3.attention.k")]

    tokens_BT = torch.randint(0, 29, (1, 12))
    gradients = []
    for cut in (False, True):
        model.zero_grad()
        handle = model.block(3).register_forward_pre_hook(_detach_shared_kv) if cut else None
        model(tokens_BT).hidden_BTD.square().sum().backward()
        if handle:
            handle.remove()
        assert owner.kv_proj is not None
        assert owner.kv_proj.weight.grad is not None
        gradients.append(owner.kv_proj.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-6


def _detach_shared_kv(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    k, v = arguments[-1]
    return (*arguments[:-1], (k.detach(), v.detach()))
