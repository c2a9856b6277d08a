"""Documents that share a row do not see each other, and a packed row computes what separate rows compute."""

import pytest
import torch
from torch import Tensor

from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer

LENGTHS = (70, 41, 17)  # over windows of 32, so that chunks and documents cut each other


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(4)
    return Transformer(load_preset("nano").model_copy(update={"initializer_range": 0.1})).double().eval()


def pack(documents: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    segments = torch.cat([torch.full((len(d),), n) for n, d in enumerate(documents)])
    positions = torch.cat([torch.arange(len(d)) for d in documents])
    return torch.cat(documents)[None], positions[None], segments[None]


def documents(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 1024, (length,), generator=generator) for length in LENGTHS]


def run(model: Transformer, tokens_BT: Tensor, positions_BT: Tensor, segments_BT: Tensor) -> Tensor:
    hidden_BTD: Tensor = model(tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT).hidden_BTD
    return hidden_BTD


@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_changing_one_document_leaves_the_others_as_they_were(model: Transformer, changed: int) -> None:
    tokens_BT, positions_BT, segments_BT = pack(documents(0))
    before_BTD = run(model, tokens_BT, positions_BT, segments_BT)

    inside_BT = segments_BT == changed
    after_BTD = run(model, torch.where(inside_BT, (tokens_BT + 1) % 1024, tokens_BT), positions_BT, segments_BT)

    torch.testing.assert_close(after_BTD[~inside_BT], before_BTD[~inside_BT], rtol=1e-12, atol=1e-12)
    assert (after_BTD[inside_BT] - before_BTD[inside_BT]).abs().max() > 1e-3


def test_a_packed_row_equals_separate_rows(model: Transformer) -> None:
    split = documents(1)
    together_TD = run(model, *pack(split))[0]
    alone_TD = torch.cat([model(document[None]).hidden_BTD[0] for document in split])
    torch.testing.assert_close(together_TD, alone_TD, rtol=1e-9, atol=1e-10)


def test_no_token_depends_on_a_later_one(model: Transformer) -> None:
    tokens_BT = torch.randint(0, 1024, (1, 100))
    changed_BT = tokens_BT.clone()
    changed_BT[0, 60] += 1
    changed_BT %= 1024
    before, after = model(tokens_BT).hidden_BTD, model(changed_BT).hidden_BTD
    torch.testing.assert_close(before[:, :60], after[:, :60], rtol=1e-12, atol=1e-12)
    assert (before[:, 99] - after[:, 99]).abs().max() > 1e-6  # and a full layer carries it to the end


def test_padding_counts_in_no_router_statistic(model: Transformer) -> None:
    tokens_BT, positions_BT, segments_BT = pack(documents(2))
    filler = torch.zeros(1, 22, dtype=torch.int64)
    output = model(
        torch.cat((tokens_BT, filler), 1),
        positions_BT=torch.cat((positions_BT, filler), 1),
        segments_BT=torch.cat((segments_BT, filler - 1), 1),
    )
    plain = model(tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT)
    torch.testing.assert_close(output.router.load_LE, plain.router.load_LE)
    torch.testing.assert_close(output.router.load_LE.sum(1), torch.ones(8))
