"""Which keys a query sees: causal, within the window, inside its own document. Built once per forward and kind of layer.

Legend: B batch, T queries, S keys, w window, n chunks. Masks are bool, True where the key is seen.
A document is a run of equal ids in a row of `segments_BT`, so that distance in the row is distance in the document.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ChunkedMask(NamedTuple):
    """A sliding window cut into chunks of `chunk` = w queries that see their own chunk and the one before: T * 2w scores, not T * T.

    Attributes:
        chunk: queries in a chunk; equal to the window.
        first: [B or 1, 1, w, w] for the first chunk, None where plain causal attention says the same.
        rest: [B*(n-1) or 1, 1, w, 2w] for the others, over the keys of the chunk before and their own.
    """

    chunk: int
    first: Tensor | None
    rest: Tensor


#: None is plain causal attention over as many keys as queries, the fast path.
Mask = Tensor | ChunkedMask | None


def build_mask(tokens: int, window: int | None, segments_BT: Tensor | None, device: torch.device) -> Mask:
    """The mask of a layer with this `window` (None: full) over `tokens` positions, in its cheapest form.

    A query at i sees keys ``i - window < j <= i`` with the same segment id. Chunks are used from ``tokens > 2 * window`` on.
    """
    if window is not None and window >= tokens:
        window = None
    if window is not None and tokens > 2 * window:
        return _chunked(tokens, window, segments_BT, device)
    if window is None and segments_BT is None:
        return None
    at = torch.arange(tokens, device=device)
    mask = at[:, None] >= at
    if window is not None:
        mask = mask & (at[:, None] - at < window)
    mask = mask[None, None]
    if segments_BT is not None:
        mask = mask & (segments_BT[:, None, :, None] == segments_BT[:, None, None, :])
    return mask


def _chunked(tokens: int, window: int, segments_BT: Tensor | None, device: torch.device) -> ChunkedMask:
    at = torch.arange(window, device=device)
    behind = at[:, None] + window - torch.arange(2 * window, device=device)  # how far each key lies behind the query
    rest = ((behind >= 0) & (behind < window))[None, None]
    if segments_BT is None:
        return ChunkedMask(window, None, rest)
    first = (at[:, None] >= at)[None, None] & _same(segments_BT[:, :window], segments_BT[:, :window])
    # The id of the filler after the last token only has to equal itself: filler queries see filler keys, and are dropped.
    filled = F.pad(segments_BT, (0, -tokens % window), value=-1)
    queries, keys = split_chunks(filled, window)
    return ChunkedMask(window, first, rest & _same(queries, keys))


def _same(queries_BT: Tensor, keys_BS: Tensor) -> Tensor:
    return queries_BT[:, None, :, None] == keys_BS[:, None, None, :]


def split_chunks(x_BT: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """All chunks but the first of [B, n*w, ...], as queries [B*(n-1), w, ...] and as keys [B*(n-1), 2w, ...]."""
    chunks = x_BT.unflatten(1, (-1, window))
    keys = torch.cat((chunks[:, :-1], chunks[:, 1:]), dim=2)
    return chunks[:, 1:].flatten(0, 1), keys.flatten(0, 1)
