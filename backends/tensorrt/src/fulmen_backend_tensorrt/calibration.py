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

    The head's inputs are what the last norm gives, whether the head is a matrix of its own or the embedding.
    """
    seen: dict[str, float] = {}

    def note(name: str, x_D: Tensor) -> None:
        seen[name] = max(seen.get(name, 0.0), float(x_D.abs().amax()))

    def before(name: str) -> Any:
        return lambda _module, inputs: note(name, inputs[0])

    hooks = [
        module.register_forward_pre_hook(before(f"{name}.weight"))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module is not network.head
    ]
    head = "embed.weight" if network.head is None else "head.weight"
    hooks.append(network.norm.register_forward_hook(lambda _module, _inputs, output: note(head, output)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
