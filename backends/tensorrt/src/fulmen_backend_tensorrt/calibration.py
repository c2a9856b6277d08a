"""What a model multiplies its matrices by: the largest magnitude of each product's inputs, seen while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fulmen_core.model.transformer import Transformer


@contextmanager
def input_ranges(network: Transformer) -> Iterator[Mapping[str, float]]:
    """Watch `network`: the largest magnitude that each matrix, named as in the checkpoint, was multiplied by so far.

    Experts, routers and the head are left out: they are no linear modules, or not called as such.
    """
    seen: dict[str, float] = {}

    def note(name: str, x_D: Tensor) -> None:
        seen[name] = max(seen.get(name, 0.0), float(x_D.abs().amax()))

    def before(name: str) -> Any:
        return lambda _module, inputs: note(name, inputs[0])

    hooks = [
        module.register_forward_pre_hook(before(f"{name}.weight"))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
