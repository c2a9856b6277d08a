"""Drawing tokens from the softmax of logits: many rows at once from all tokens, or one row from its likeliest.

Both invert the cumulative distribution, with weights in float32 and sums in float64. The whole vocabulary is summed in
two steps, stretches of 32 tokens and then their sums, because a cumulative sum over all of it costs more than its
exponentials.

Legend: S rows, V vocabulary, B stretches, L tokens of a stretch, C tokens kept.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Draw(Protocol):
    """Draws a token for each row: `draw_tokens`, or what a runner has in its place, equal but for rounding."""

    def __call__(
        self, logits_SV: NDArray[np.float32], temperature_S: NDArray[np.float64], uniform_S: NDArray[np.float64]
    ) -> NDArray[np.integer]:
        """See `draw_tokens`."""
        ...


@runtime_checkable
class DrawsTokens(Protocol):
    """A `Runner` that draws tokens itself, where the logits are."""

    @property
    def draw(self) -> Draw:
        """See `draw_tokens`."""
        ...


_STRETCH = 32
#: Blocks whose largest logits say which tokens may be among the likeliest; strided, as NumPy is fastest then.
_BLOCK = 64
#: Below it the weight of every logit but the largest is zero in float32 all the same.
_LEAST_TEMPERATURE = 1e-30
#: How many blocks top-p looks into for the tokens that it keeps, before it sorts them all.
_FIRST_BLOCKS = (64, 512)


def draw_of(runner: object) -> Draw:
    """How the tokens of a runner's logits are drawn."""
    return runner.draw if isinstance(runner, DrawsTokens) else draw_tokens


def draw_tokens(
    logits_SV: NDArray[np.float32], temperature_S: NDArray[np.float64], uniform_S: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return a token for each row: the likeliest at temperature 0 (the lowest id among equals), else a drawn one.

    A row's token depends on nothing but the row; it is -1 where a logit is NaN or the largest is not finite.

    Args:
        logits_SV: float32 ``[S, V]``.
        temperature_S: of each row, 0 or positive.
        uniform_S: a number in [0, 1) for each row; of a row at temperature 0 it does not matter.
    """
    token_S: NDArray[np.intp] = logits_SV.argmax(axis=1)
    top_S = logits_SV[np.arange(len(logits_SV)), token_S]  # NaN if there is one
    token_S[~np.isfinite(top_S)] = -1
    drawn = np.flatnonzero((token_S >= 0) & (temperature_S > 0))
    if len(drawn):
        rows_SV = logits_SV if len(drawn) == len(logits_SV) else logits_SV[drawn]
        token_S[drawn] = draw_softmax(rows_SV, top_S[drawn], temperature_S[drawn], uniform_S[drawn])
    return token_S


def inverse_temperatures(temperature_S: NDArray[np.float64]) -> NDArray[np.float32]:
    """What differences of logits are multiplied by; 0 at temperature 0, where nothing is drawn."""
    inverse_S = (1 / np.maximum(temperature_S, _LEAST_TEMPERATURE)).astype(np.float32)
    return np.where(temperature_S > 0, inverse_S, np.float32(0))


def draw_softmax(
    logits_SV: NDArray[np.float32],
    top_S: NDArray[np.float32],
    temperature_S: NDArray[np.float64],
    uniform_S: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Return a token for each row, drawn with probabilities ``softmax(logits / temperature)``.

    A row's token depends on nothing but the row. A token of probability zero is never drawn.

    Args:
        logits_SV: finite or minus infinity, at least one finite in each row.
        top_S: the largest of each row.
        temperature_S: positive.
        uniform_S: a number in [0, 1) for each row.
    """
    rows, vocab_size = logits_SV.shape
    weight_SV = np.empty((rows, -(-vocab_size // _STRETCH) * _STRETCH), np.float32)
    weight_SV[:, vocab_size:] = 0
    _weigh(logits_SV, top_S[:, None], temperature_S[:, None], weight_SV[:, :vocab_size])
    weight_SBL = weight_SV.reshape(rows, -1, _STRETCH)
    stretch_S, rest_S = _invert(weight_SBL @ np.ones(_STRETCH, np.float32), uniform_S)
    place_S, _ = _invert(weight_SBL[np.arange(rows), stretch_S], rest_S)
    token_S: NDArray[np.intp] = stretch_S * _STRETCH + place_S
    return token_S


def draw_from_likeliest(
    logits_V: NDArray[np.float32], temperature: float, top_k: int, top_p: float, uniform: float
) -> int:
    """Return a token drawn as by `draw_softmax`, but from the likeliest alone.

    Kept are the `top_k` likeliest (0: all), the lower ids among equals, and of these the fewest that have at least
    `top_p` of their probability together.
    """
    vocab_size = len(logits_V)
    top, scale = logits_V.max(), np.array([temperature])
    if 0 < top_k < vocab_size:
        ids_C = _first(logits_V, _likeliest(logits_V, top_k), top_k)
        weight_C = _weigh(logits_V[ids_C], top, scale)
        total = float(weight_C.sum(dtype=np.float64))
    else:
        total = float(_weigh(logits_V, top, scale).sum(dtype=np.float64))
        for blocks in (*_FIRST_BLOCKS, vocab_size):
            ids_C = _likeliest(logits_V, blocks)
            weight_C = _weigh(logits_V[ids_C], top, scale)
            if len(ids_C) == vocab_size or weight_C.sum(dtype=np.float64) > top_p * total:
                break
    if top_p < 1:
        ids_C = _first(logits_V, ids_C, _count_of_mass(weight_C, top_p * total))
    place_S, _ = _invert(_weigh(logits_V[ids_C], top, scale)[None], np.array([uniform]))
    return int(ids_C[place_S[0]])


def _weigh(
    logits: NDArray[np.float32],
    top: NDArray[np.float32] | np.float32,
    temperature: NDArray[np.float64],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """``exp((logits - top) / temperature)``, into `out` if given."""
    weight = np.subtract(logits, top, out=out)
    with np.errstate(over="ignore"):  # to minus infinity, whose weight is the right one: zero
        if (temperature != 1).any():
            weight *= inverse_temperatures(temperature)
        return np.exp(weight, out=weight)


def _invert(
    weight_SC: NDArray[np.float32], uniform_S: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the place in whose share of its row's sum each number lies, and how far into that share, in [0, 1)."""
    each = np.arange(len(weight_SC))
    cumulative_SC = weight_SC.cumsum(axis=1, dtype=np.float64)
    total_S = cumulative_SC[:, -1]
    # less than the total, however the product is rounded: what is counted then ends before a positive weight
    target_S = np.minimum(uniform_S * total_S, np.nextafter(total_S, 0))
    place_S: NDArray[np.intp] = (cumulative_SC <= target_S[:, None]).sum(axis=1)
    before_S = cumulative_SC[each, place_S] - weight_SC[each, place_S]
    within_S = np.clip((target_S - before_S) / weight_SC[each, place_S], 0, 1)
    return place_S, within_S


def _likeliest(logits_V: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return ids in order, among them those of the `count` largest logits: none is below that many blocks' largest."""
    blocks = len(logits_V) // _BLOCK
    if count > blocks:
        return np.arange(len(logits_V))
    maxima_B = logits_V[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
    return np.flatnonzero(logits_V >= np.partition(maxima_B, blocks - count)[blocks - count])


def _first(logits_V: NDArray[np.float32], ids_C: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return those of `ids_C` that have the `count` largest logits, the lower ids among equals."""
    logits_C = logits_V[ids_C]
    border = np.partition(logits_C, len(logits_C) - count)[len(logits_C) - count]
    above_C = ids_C[logits_C > border]
    return np.concatenate([above_C, ids_C[logits_C == border][: count - len(above_C)]])


def _count_of_mass(weight_C: NDArray[np.float32], mass: float) -> int:
    """How many of the largest weights it takes to have `mass` together, at least one."""
    descending_C = np.sort(weight_C)[::-1]
    before_C = descending_C.cumsum(dtype=np.float64) - descending_C
    return max(1, int(np.count_nonzero(before_C < mass)))
