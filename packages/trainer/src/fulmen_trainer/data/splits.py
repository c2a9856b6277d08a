"""Train and held-out by content: a pure function of a text, so the two are disjoint by construction, everywhere."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

from fulmen_core.errors import UserError

Split = Literal["all", "train", "heldout"]


def check_split(split: str, heldout_percent: float, where: str) -> None:
    """Refuse an unknown split, or a share of held-out texts outside [0, 100].

    Raises:
        UserError: naming what is allowed.
    """
    if split not in get_args(Split):
        raise UserError(f"unknown split {split!r}", where=where, remedy=f"use one of {', '.join(get_args(Split))}")
    if not 0 <= heldout_percent <= 100:
        raise UserError(f"heldout_percent {heldout_percent} is not between 0 and 100", where=where)


def in_split(text: str, split: Split, heldout_percent: float) -> bool:
    """Whether the text belongs to the split, by its SHA-256: equal texts always fall on the same side.

    Args:
        text: the document or question.
        split: "all" holds every text.
        heldout_percent: share of texts that are held out, in percent.
    """
    if split == "all":
        return True
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    heldout = int.from_bytes(digest[:8], "big") < heldout_percent / 100 * 2**64
    return heldout == (split == "heldout")
