"""Matrices in 4 bits: the nearest of fifteen numbers, and two in a byte."""

from __future__ import annotations

import numpy as np
import pytest

from fulmen_safety.learned.four_bits import packed, rounded, unpacked, widened


def test_rounding_is_to_the_nearest_of_fifteen_and_what_is_rounded_stays() -> None:
    weight_NK = np.random.default_rng().standard_normal((5, 960)).astype(np.float32)
    numbers_NK, scale_NG = rounded(weight_NK)
    assert set(np.unique(numbers_NK)) == set(range(-7, 8))
    steps = np.abs(widened(numbers_NK, scale_NG) - weight_NK) / np.repeat(scale_NG, 32, 1)
    assert steps.max() < 0.51  # the scale itself is rounded to float16
    again_NK, scales_NG = rounded(widened(numbers_NK, scale_NG))
    np.testing.assert_array_equal(again_NK, numbers_NK)
    np.testing.assert_array_equal(scales_NG, scale_NG)


@pytest.mark.parametrize("columns", [1, 2, 7, 64])
def test_two_in_a_byte_are_what_they_were(columns: int) -> None:
    numbers_NK = np.random.default_rng().integers(-7, 8, (9, columns)).astype(np.int8)
    pairs = packed(numbers_NK)
    assert pairs.nbytes == 9 * ((columns + 1) // 2)
    np.testing.assert_array_equal(unpacked(pairs, columns), numbers_NK)
    with pytest.raises(ValueError, match="do not hold"):
        unpacked(pairs, columns + 2)
