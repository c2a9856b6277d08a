"""Which keys a query sees: causal, in the window, inside its own document. Built once per forward and kind of layer.

Legend: B batch, T queries, S keys, w window, n chunks. Masks are bool, True where the key is seen.
A document is a run of equal ids in a row of `segments_BT`, so that distance in the row is distance in the document.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ChunkedMask(NamedTuple):
    """A sliding window in chunks of w queries that see their own chunk and the one before: T * 2w scores, not T * T.

    Attributes:
        chunk: queries in a chunk; equal to the window.
        first: [B or 1, 1, w, w] for the first chunk.
        rest: [B*(n-1) or 1, 1, w, 2w] for the others, over the keys of the chunk before and their own.
    """

    chunk: int
    first: Tensor
    rest: Tensor


class FirstKeys(NamedTuple):
    """A mask said by each query's first key, as what it sees ends with itself; for backends that read it row by row.

    Attributes:
        first_BT: int32 [B or 1, T]: query i sees keys ``first[i] .. i``.
        window: no query sees more keys than this; None: up to T.
    """

    first_BT: Tensor
    window: int | None

    def seen(self) -> Tensor:
        """The same as a bool tensor [B or 1, 1, T, T]."""
        at = torch.arange(self.first_BT.shape[1], device=self.first_BT.device)
        return ((at[:, None] >= at) & (at >= self.first_BT[..., None]))[:, None]


#: None is plain causal attention over as many keys as queries, the fast path.
Mask = Tensor | ChunkedMask | FirstKeys | None


def build_mask(tokens: int, window: int | None, segments_BT: Tensor | None, device: torch.device) -> Mask:
    """The mask of a layer with this `window` (None: full) over `tokens` positions, in its cheapest form.

    A query at i sees keys ``i - window < j <= i`` of its own segment. Chunks are used if ``tokens >= 2 * window``.
    """
    if window is not None and window >= tokens:
        window = None
    if window is not None and tokens >= 2 * window:
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


def first_keys(tokens: int, window: int | None, segments_BT: Tensor | None, device: torch.device) -> FirstKeys:
    """The same mask as `build_mask`'s, as `FirstKeys`."""
    at = torch.arange(tokens, device=device)[None]
    first_BT = torch.zeros_like(at)
    if segments_BT is not None:
        begins = F.pad(segments_BT[:, 1:] != segments_BT[:, :-1], (1, 0))
        first_BT = (at * begins).cummax(dim=1).values
    if window is not None and window < tokens:
        return FirstKeys(torch.maximum(first_BT, at - window + 1).to(torch.int32), window)
    return FirstKeys(first_BT.to(torch.int32), None)


def _chunked(tokens: int, window: int, segments_BT: Tensor | None, device: torch.device) -> ChunkedMask:
    at = torch.arange(window, device=device)
    behind = at[:, None] + window - torch.arange(2 * window, device=device)  # how far each key lies behind the query
    rest = ((behind >= 0) & (behind < window))[None, None]
    first = (at[:, None] >= at)[None, None]
    if segments_BT is None:
        return ChunkedMask(window, first, rest)
    head = segments_BT[:, :window]
    # Filler after the last token sees filler, so that no row of scores is empty; its results are dropped.
    filled = F.pad(segments_BT, (0, -tokens % window), value=-1)
    queries, keys = last_chunks(filled, window), paired_chunks(filled, window)
    return ChunkedMask(window, first & _same(head, head), rest & _same(queries, keys))


def _same(queries_BT: Tensor, keys_BS: Tensor) -> Tensor:
    return queries_BT[:, None, :, None] == keys_BS[:, None, None, :]


def last_chunks(x_BT: Tensor, chunk: int) -> Tensor:
    """All chunks but the first of [B, n*chunk, ...]: [B*(n-1), chunk, ...]."""
    return torch.unflatten(x_BT[:, chunk:], 1, (-1, chunk)).flatten(0, 1)


def paired_chunks(x_BT: Tensor, chunk: int) -> Tensor:
    """All chunks but the first, each behind the chunk before it: [B*(n-1), 2*chunk, ...]."""
    before, own = (torch.unflatten(part, 1, (-1, chunk)) for part in (x_BT[:, :-chunk], x_BT[:, chunk:]))
    return torch.cat((before, own), dim=2).flatten(0, 1)
