"""Which tokens exist beside the learned ones, and which vocabulary sizes are allowed."""

from __future__ import annotations

from fulmen_core.errors import UserError

ENDOFTEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
PAD = "<|pad|>"

#: Special tokens at ids 0..15: the four in use, then room for later ones, so that adding one never moves an id.
SPECIAL_TOKENS: tuple[str, ...] = (ENDOFTEXT, IM_START, IM_END, PAD, *(f"<|reserved_{i}|>" for i in range(12)))

#: The largest vocabulary, Yi-Lightning's (report section 3.1): 784 * 128.
LARGEST = 100_352
#: Sizes are multiples of this, so that embedding and head split evenly over ranks and tiles.
MULTIPLE = 128
#: The smallest multiple of 128 that holds the special tokens and the 256 bytes.
SMALLEST = -(-(len(SPECIAL_TOKENS) + 256) // MULTIPLE) * MULTIPLE


def filler_token(index: int) -> str:
    """The name of the `index`-th token that only fills the vocabulary up to the size asked for."""
    return f"<|filler_{index}|>"


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a size that is not a multiple of 128 in [384, 100352], naming the nearest valid one.

    Raises:
        UserError: always with the nearest valid size in its remedy.
    """
    if vocab_size % MULTIPLE == 0 and SMALLEST <= vocab_size <= LARGEST:
        return
    nearest = min(max(round(vocab_size / MULTIPLE) * MULTIPLE, SMALLEST), LARGEST)
    raise UserError(
        f"vocabulary size {vocab_size} is not a multiple of {MULTIPLE} between {SMALLEST} and {LARGEST}",
        remedy=f"the nearest valid size is {nearest}",
    )
