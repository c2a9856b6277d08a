"""Upcycling cuts a dense network into experts: the function is the same where whole copies of it are selected."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fulmen_core.errors import UserError
from fulmen_core.formats.foreign import ForeignCheckpoint
from fulmen_core.formats.upcycle_config import UpcycleConfig
from fulmen_core.formats.upcycling import upcycle
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.parameters import parameter_shapes
from fulmen_core.model.transformer import Transformer

WINDOW = 24
DENSE = ModelConfig(
    vocab_size=256,
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    layer_pattern="F",
    kv_share=1,
    intermediate_size=192,
    qk_norm=False,
)


@pytest.fixture(scope="module")
def dense() -> tuple[Transformer, ForeignCheckpoint]:
    torch.manual_seed(torch.seed() % 2**31)
    model = Transformer(DENSE).double()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # norms of one would hide a wrong one
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    tensors = model.state_dict()
    return model, ForeignCheckpoint("llama", DENSE, tensors.__getitem__, {})


def build(checkpoint: ForeignCheckpoint) -> Transformer:
    model = Transformer(checkpoint.config).double()
    model.load_state_dict({name: checkpoint.load(name) for name in parameter_shapes(checkpoint.config)})
    return model


def logits(model: Transformer, tokens_BT: Tensor) -> Tensor:
    return model.logits(model(tokens_BT).hidden_BTD)


@pytest.mark.parametrize(
    "wanted",
    [
        {"experts": 8},  # every expert active
        {"experts": 8, "active": 8, "dense_layers": 1},
        {"experts": 16, "active": 4},  # 4 copies of 4 shards, one copy a token
        {"experts": 24, "split": 4, "active": 8},  # 6 copies of 4 shards, two copies a token
        {"experts": 6, "split": 1, "active": 2},  # plain sparse upcycling (arXiv 2212.05055)
    ],
    ids=str,
)
def test_the_function_is_unchanged_where_whole_copies_are_selected(
    dense: tuple[Transformer, ForeignCheckpoint], wanted: dict[str, int]
) -> None:
    model, checkpoint = dense
    config = UpcycleConfig(**wanted, window=WINDOW)
    assert config.keeps_function
    sparse = build(upcycle(checkpoint, config))
    tokens_BT = torch.randint(DENSE.vocab_size, (3, WINDOW))
    torch.testing.assert_close(logits(sparse, tokens_BT), logits(model, tokens_BT), rtol=0, atol=1e-10)


def test_a_router_sends_tokens_to_different_copies(dense: tuple[Transformer, ForeignCheckpoint]) -> None:
    sparse = build(upcycle(dense[1], UpcycleConfig(experts=16, active=4, window=WINDOW)))
    router = sparse(torch.randint(DENSE.vocab_size, (8, WINDOW))).router
    assert router is not None
    used_LC = router.counts_LE().unflatten(1, (4, 4)).sum(-1) > 0
    assert bool((used_LC.sum(1) > 1).all())


def test_every_expert_and_router_row_that_is_reached_gets_a_gradient(
    dense: tuple[Transformer, ForeignCheckpoint],
) -> None:
    sparse = build(upcycle(dense[1], UpcycleConfig(experts=16, split=4, active=8, window=WINDOW)))
    output = sparse(torch.randint(DENSE.vocab_size, (8, WINDOW)))
    sparse.logits(output.hidden_BTD).logsumexp(-1).sum().backward()
    assert output.router is not None
    for block, counts_E in zip(sparse.blocks, output.router.counts_LE(), strict=True):
        moved_E = block.ffn.experts.down_EFD.grad.flatten(1).abs().sum(1) > 0
        assert torch.equal(moved_E, counts_E > 0)
        assert float(block.ffn.router.weight.grad.abs().sum()) > 0


def test_fewer_active_experts_than_shards_change_the_function_and_keep_its_scale(
    dense: tuple[Transformer, ForeignCheckpoint],
) -> None:
    model, checkpoint = dense
    config = UpcycleConfig(experts=8, split=8, active=4, window=WINDOW)
    assert not config.keeps_function
    sparse = upcycle(checkpoint, config)
    assert sparse.config.router_scale == 8
    tokens_BT = torch.randint(DENSE.vocab_size, (3, WINDOW))
    assert not torch.allclose(logits(build(sparse), tokens_BT), logits(model, tokens_BT), atol=1e-3)


def test_a_context_beyond_the_window_sees_less(dense: tuple[Transformer, ForeignCheckpoint]) -> None:
    model, checkpoint = dense
    sparse = build(upcycle(checkpoint, UpcycleConfig(experts=8, window=WINDOW)))
    tokens_BT = torch.randint(DENSE.vocab_size, (1, 3 * WINDOW))
    ours, theirs = logits(sparse, tokens_BT), logits(model, tokens_BT)
    torch.testing.assert_close(ours[:, :WINDOW], theirs[:, :WINDOW], rtol=0, atol=1e-10)
    assert not torch.allclose(ours[:, -1], theirs[:, -1], atol=1e-3)


def test_the_same_seed_gives_the_same_router_and_another_another(
    dense: tuple[Transformer, ForeignCheckpoint],
) -> None:
    first, second, other = (
        upcycle(dense[1], UpcycleConfig(experts=16, active=4, seed=seed)).load("blocks.1.ffn.router.weight")
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"experts": 5}, "intermediate_size 192 does not divide into 5 shards"),
        ({"experts": 12, "split": 12, "active": 4, "dense_layers": 4}, "leaves none of the 4 layers"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused_in_a_sentence(
    dense: tuple[Transformer, ForeignCheckpoint], wanted: dict[str, int], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        upcycle(dense[1], UpcycleConfig(**wanted))


def test_a_mixture_of_experts_is_not_upcycled_again(dense: tuple[Transformer, ForeignCheckpoint]) -> None:
    once = upcycle(dense[1], UpcycleConfig(experts=8))
    with pytest.raises(UserError, match="has 8 experts already"):
        upcycle(once, UpcycleConfig(experts=8))


@pytest.mark.parametrize("wanted", [{"experts": 8, "split": 3}, {"experts": 8, "active": 16, "split": 8}])
def test_shards_and_copies_must_come_out_even(wanted: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"experts|active"):
        UpcycleConfig(**wanted)
