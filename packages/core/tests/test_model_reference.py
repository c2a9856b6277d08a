"""The network equals a plain float64 reference, written from the formulas: loops over queries, heads and experts.

That includes the gradient of every weight, with and without recomputation; so also of K and V that two layers share.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from fulmen_core.model.config import BalanceConfig, ModelConfig, RopeScaling
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
    "AFMoE's choices": {
        "kv_share": 1,
        "rope_layers": "window",
        "attention_gate": True,
        "post_norms": True,
        "embedding_scale": 4.0,
        "router_score": "sigmoid",
        "router_bias": True,
        "router_scale": 1.7,
        "num_shared_experts": 1,
    },
    "OLMoE's choices": {"layer_pattern": "F", "kv_share": 1, "qk_norm_span": "projection", "clip_qkv": 0.8},
    "clipped without norms, biased softmax": {"qk_norm": False, "clip_qkv": 0.7, "router_bias": True},
    "sigmoid scores as they are": {"router_score": "sigmoid", "norm_topk_prob": False, "router_scale": 0.5},
    "linear positions": {"rope_scaling": RopeScaling(rope_type="linear", factor=3.0)},
    "Llama 3 positions": {
        "head_dim": 10,
        "rope_theta": 1e4,
        "rope_scaling": RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=20),
    },
    "yarn positions": {
        "head_dim": 10,
        "rope_theta": 1e4,
        "rope_scaling": RopeScaling(
            rope_type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=8.0, beta_slow=0.5
        ),
    },
}


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + 1e-6) * weight


def rotated(x: Tensor, position: int, config: ModelConfig) -> Tensor:
    half = len(x) // 2
    out: list[Tensor] = [x[0]] * len(x)
    for j in range(half):
        speed, size = speed_and_size(j, config)
        cos, sin = size * math.cos(position * speed), size * math.sin(position * speed)
        out[j] = x[j] * cos - x[j + half] * sin
        out[j + half] = x[j + half] * cos + x[j] * sin
    return torch.stack(out)


def speed_and_size(j: int, config: ModelConfig) -> tuple[float, float]:
    """Angle a token of pair j, and what cosine and sine are multiplied by."""
    theta, width, scaling = config.rope_theta, config.head_dim, config.rope_scaling
    speed = theta ** (-2 * j / width)
    if scaling is None:
        return speed, 1.0
    if scaling.rope_type == "linear":
        return speed / scaling.factor, 1.0
    context = scaling.original_max_position_embeddings
    assert context is not None
    if scaling.rope_type == "llama3":
        wavelength = 2 * math.pi / speed
        if wavelength > context / scaling.low_freq_factor:
            return speed / scaling.factor, 1.0
        if wavelength < context / scaling.high_freq_factor:
            return speed, 1.0
        smooth = (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        return (1 - smooth) * speed / scaling.factor + smooth * speed, 1.0

    def pair(turns: float) -> float:
        return width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(pair(scaling.beta_fast)), 0), min(math.ceil(pair(scaling.beta_slow)), width - 1)
    ramp = min(max((j - low) / (high - low), 0.0), 1.0)
    return speed / scaling.factor * ramp + speed * (1 - ramp), 0.1 * math.log(scaling.factor) + 1


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    g = gate @ x
    return down @ (g * torch.sigmoid(g) * (up @ x))


def reference(
    model: Transformer, config: ModelConfig, tokens: list[int], positions: list[int], ids: list[int]
) -> Tensor:
    """Logits [T, V] of one row."""
    weights = dict(model.named_parameters()) | dict(model.named_buffers())
    h, heads, kv_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    xs = [config.embedding_scale * weights["embed.weight"][token] for token in tokens]
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

        rotates = config.rope_layers == "all" or not full

        def split(
            x: Tensor,
            matrix: Tensor,
            norm: str | None,
            position: int,
            w: Mapping[str, Tensor] = w,
            rotates: bool = rotates,
        ) -> list[Tensor]:
            rows = matrix @ x
            if norm is not None and config.qk_norm and config.qk_norm_span == "projection":
                rows = rms(rows, w[norm])
            parts = list(torch.split(rows, h))
            if norm is not None and config.qk_norm and config.qk_norm_span == "head":
                parts = [rms(part, w[norm]) for part in parts]
            if config.clip_qkv is not None:
                parts = [part.clip(-config.clip_qkv, config.clip_qkv) for part in parts]
            return parts if norm is None or not rotates else [rotated(part, position, config) for part in parts]

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
            mixed = torch.cat(heads_out)
            if config.attention_gate:
                mixed = mixed * torch.sigmoid(w["attention.gate_proj.weight"] @ x)
            result = w["attention.o_proj.weight"] @ mixed
            attended.append(xs[t] + (rms(result, w["attention_post_norm.weight"]) if config.post_norms else result))
        xs = []
        for x in attended:
            result = feed_forward(rms(x, w["ffn_norm.weight"]), w, config)
            xs.append(x + (rms(result, w["ffn_post_norm.weight"]) if config.post_norms else result))
    final = [rms(x, weights["norm.weight"]) for x in xs]
    head = weights["embed.weight"] if config.tie_word_embeddings else weights["head.weight"]
    return torch.stack([head @ x for x in final])


def feed_forward(x: Tensor, w: Mapping[str, Tensor], config: ModelConfig) -> Tensor:
    def dense(name: str) -> Tensor:
        gate, up = w[f"{name}.gate_up.weight"].chunk(2)
        return swiglu(x, gate, up, w[f"{name}.down.weight"])

    if "ffn.router.weight" not in w:
        return dense("ffn")
    logits = w["ffn.router.weight"] @ x
    scores = torch.exp(logits) / torch.exp(logits).sum()
    if config.router_score == "sigmoid":
        scores = 1 / (1 + torch.exp(-logits))
    bias = w["ffn.router.bias"].tolist() if config.router_bias else [0.0] * config.num_experts
    ranked = sorted(range(config.num_experts), key=lambda e: -(scores[e].item() + bias[e]))
    chosen = ranked[: config.num_experts_per_tok]
    total = sum(scores[e] for e in chosen) if config.norm_topk_prob else 1.0
    y = torch.zeros_like(x)
    for e in chosen:
        gate, up = w["ffn.experts.gate_up_EGD"][e].chunk(2)
        y = y + config.router_scale * scores[e] / total * swiglu(x, gate, up, w["ffn.experts.down_EFD"][e].T)
    return y + dense("ffn.shared") if config.num_shared_experts else y


@pytest.fixture(params=VARIANTS, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Transformer, Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """A model, its inputs, and the reference's logits and gradients for them."""
    torch.manual_seed(11)
    config = ModelConfig(**SMALL | VARIANTS[request.param])
    model = Transformer(config).double()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):  # norms and biases would hide a mistake where they begin
            if tensor.ndim == 1:
                tensor += 0.3 * torch.randn_like(tensor)
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
    *before, (k, v), recompute_experts = arguments
    return (*before, (k.detach(), v.detach()), recompute_experts)


def test_a_bias_ranks_experts_and_is_neither_trained_nor_rounded() -> None:
    config = ModelConfig(**SMALL | {"router_score": "sigmoid", "router_bias": True})
    model = Transformer(config)
    router = model.block(0).ffn.router
    router.bias += torch.rand(6) / 3
    bias = router.bias.clone()
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]

    model.to(torch.bfloat16)
    model(torch.randint(0, 29, (1, 12))).hidden_BTD.sum().backward()

    assert router.weight.dtype == torch.bfloat16
    assert router.bias.dtype == torch.float32
    assert torch.equal(router.bias, bias)
    router.bias += torch.tensor([0, 0, 0, 9.0, 0, 0])
    selected_NK = router(torch.randn(40, 16, dtype=torch.bfloat16)).selected_NK
    assert (selected_NK[:, 0] == 3).all()
