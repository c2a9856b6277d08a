"""Decode steps of a few fixed sizes, each recorded once as a CUDA graph and replayed from then on.

A step of single tokens is filled up to the next size. Its arrays are copied to where the recorded kernels read them, in
two copies, and the whole pass is one launch: the host's time for hundreds of kernels is gone. Graphs share one pool of
memory, as no two run at once and results are copied before the next does. A size is recorded at its first step.

Legend: B sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fulmen_backend_cuda.step_plan import PlacedPlan, StepPlan, flat_on_host, views, with_chunks

_WARM_UPS = 2  # runs before a recording: libraries and kernels are loaded, and compiled, then


class _Recorded(NamedTuple):
    wide: Tensor  # what the kernels read: all int64 arrays of a plan, and all int32 ones
    narrow: Tensor
    replay: Callable[[], Tensor]


class DecodeGraphs:
    """Runs padded plans of single tokens.

    Args:
        run: the pass; reads the plan's arrays and the caches alone, asks nothing of the host, and may be repeated.
        sizes: that plans are padded to, in rising order.
        device: a GPU. On a CPU the same happens without graphs: the pass is run on the arrays in their fixed place.
    """

    def __init__(self, run: Callable[[PlacedPlan], Tensor], sizes: Sequence[int], device: torch.device) -> None:
        self._run, self._sizes, self._device = run, sizes, device
        self._captures = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._captures else None
        self._recorded: dict[int, _Recorded] = {}

    def size_for(self, sequences: int) -> int | None:
        """The size that so many sequences are filled up to; None: there is none."""
        return next((size for size in self._sizes if size >= sequences), None)

    @property
    def recorded(self) -> tuple[int, ...]:
        """The sizes that were recorded."""
        return tuple(self._recorded)

    def logits(self, plan: StepPlan) -> Tensor:
        """What `run` makes of a padded plan: [size, V], to be copied before the next call."""
        wide, narrow = (flat_on_host(part, pinned=self._captures) for part in plan.arrays())
        found = self._recorded.get(plan.decoded)
        if found is None:
            found = self._recorded[plan.decoded] = self._record(plan, wide, narrow)
        else:
            found.wide.copy_(wide, non_blocking=True)
            found.narrow.copy_(narrow, non_blocking=True)
        return found.replay()

    def _record(self, plan: StepPlan, wide: Tensor, narrow: Tensor) -> _Recorded:
        arrays, others = plan.arrays()
        wide, narrow = wide.to(self._device), narrow.to(self._device)
        placed = with_chunks(plan, plan.with_arrays(views(wide, arrays), views(narrow, others)))
        if not self._captures:
            return _Recorded(wide, narrow, lambda: self._run(placed))
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._run(placed)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may copy to the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            logits_BV = self._run(placed)

        def replay() -> Tensor:
            graph.replay()
            return logits_BV

        return _Recorded(wide, narrow, replay)


def decode_sizes(largest: int) -> list[int]:
    """Sizes up to `largest`: 1, 2, 4, then multiples of 8, from 64 on of 32, so that filler stays small."""
    sizes = [size for size in (1, 2, 4, *range(8, 64, 8), *range(64, largest, 32)) if size < largest]
    return [*sizes, largest]
