"""Every quantised type expands to exactly the floats that the package `gguf` gives."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from fulmen_core.formats.gguf.blocks import _CHUNK_ELEMENTS, BLOCKS, BlockType, dequantise

QUANTISED = {number: kind for number, kind in BLOCKS.items() if kind.expand is not None}


@pytest.mark.parametrize("number", QUANTISED, ids=[kind.name for kind in QUANTISED.values()])
def test_random_blocks_expand_to_the_bits_of_the_reference(number: int) -> None:
    kind = QUANTISED[number]
    seed = int(np.random.default_rng().integers(2**32))
    stored = np.random.default_rng(seed).integers(0, 256, (501, kind.nbytes), dtype=np.uint8)
    ours = dequantise(kind, stored.reshape(-1))
    with np.errstate(all="ignore"):  # random scales may be infinite
        expected = gguf.dequantize(stored, gguf.GGMLQuantizationType(number)).reshape(-1)
    nan = np.isnan(expected)
    assert not nan.all(), seed
    assert (np.isnan(ours) == nan).all(), seed
    assert (ours.view(np.uint32)[~nan] == expected.view(np.uint32)[~nan]).all(), seed


@pytest.mark.parametrize("number", QUANTISED, ids=[kind.name for kind in QUANTISED.values()])
def test_sizes_are_those_of_the_reference(number: int) -> None:
    kind = gguf.GGMLQuantizationType(number)
    assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (
        BLOCKS[number].name,
        BLOCKS[number].size,
        BLOCKS[number].nbytes,
    )


def test_a_tensor_of_several_chunks_expands_like_its_chunks() -> None:
    kind: BlockType = BLOCKS[8]
    count = _CHUNK_ELEMENTS // kind.size + 3
    stored = np.random.default_rng(1).integers(0, 100, (count, kind.nbytes), dtype=np.uint8)
    whole = dequantise(kind, stored.reshape(-1)).reshape(count, -1)
    assert (whole[-5:] == dequantise(kind, stored[-5:].reshape(-1)).reshape(5, -1)).all()
