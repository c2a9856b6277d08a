"""Factors that move outliers of what is multiplied into the weights, so that a block of 8 bits rounds both little.

``x @ w.T`` is ``(x / s) @ (w * s).T``. A block of rounded inputs has one step, and a channel that is forty times as
large as its neighbours leaves them none; with ``s`` the root of the ratio of the channel's size to that of its weights,
the two share what makes it large (SmoothQuant, arXiv 2211.10438). Nothing divides when the model runs: ``1 / s`` lies
in the weight of the norm before the product or, where a gated network's second product follows, in the rows of its
first.

Legend: D model width, F inner width, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from fulmen_backend_onnxruntime.products import Array
from fulmen_core.model.feed_forward import DenseFeedForward
from fulmen_core.model.transformer import Transformer

#: Sequences and tokens of each, drawn at random: which channels are large hardly depends on the text.
_SEQUENCES, _TOKENS, _SEED = 2, 128, 0
#: A channel is taken for no smaller than this share of the largest.
_SMALLEST = 1e-4
#: Products that read the output of a norm of a block, but for the router's: that is never rounded.
_READERS = {
    "attention_norm": ("attention.q_proj.weight", "attention.kv_proj.weight", "attention.gate_proj.weight"),
    "ffn_norm": ("ffn.gate_up.weight", "ffn.shared.gate_up.weight", "ffn.experts.gate_up_EGD"),
}
_ROUTER = "ffn.router.weight"


class Weights(Protocol):
    """Tensors of a model by name, float32."""

    def __getitem__(self, name: str, /) -> Array:
        """One of them."""
        ...

    def of_layer(self, index: int, name: str) -> Array:
        """A tensor of a layer's block."""
        ...


@dataclass(frozen=True, slots=True)
class Smoothing:
    """What weights are multiplied and divided by. None of it: they stay as they are.

    Attributes:
        inputs: by name of a weight [..., N, K], factors [K].
        outputs: by name of a weight [N] or [N, K], divisors [N].
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @classmethod
    def none(cls) -> Self:
        """For weights that are not rounded."""
        return cls({}, {})

    @classmethod
    def of(cls, network: Transformer) -> Self:
        """Of a model in float32, from how large its channels are on tokens drawn at random, the same each time."""
        found = _channel_sizes(network)
        weights = dict(network.named_parameters())
        inputs: dict[str, Array] = {}
        outputs: dict[str, Array] = {}
        for name, sizes in found.items():
            block, _, part = name.rpartition(".")
            if part == "down":
                first, second = f"{block}.gate_up.weight", f"{name}.weight"
                factors = inputs[second] = _factors(sizes, [weights[second]])
                outputs[first] = np.concatenate([np.ones_like(factors), factors])
                continue
            readers = [f"{block}.{reader}" for reader in _READERS[part]] if block else ["head.weight"]
            readers = [reader for reader in readers if reader in weights]
            factors = outputs[f"{name}.weight"] = _factors(sizes, [weights[reader] for reader in readers])
            router = f"{block}.{_ROUTER}"
            exact = [router] if part == "ffn_norm" and router in weights else []
            inputs |= dict.fromkeys([*readers, *exact], factors)
        return cls(inputs, outputs)

    def smoothed(self, name: str, weight: Array) -> Array:
        """The weight called `name`, as it is exported."""
        if name in self.inputs:
            weight = weight * self.inputs[name]
        if name in self.outputs:
            divisors = self.outputs[name]
            weight = weight / (divisors if weight.ndim == 1 else divisors[:, None])
        return weight


class SmoothedWeights:
    """Weights as they are exported."""

    def __init__(self, weights: Weights, smoothing: Smoothing) -> None:
        self._weights, self._smoothing = weights, smoothing

    def __getitem__(self, name: str) -> Array:
        return self._smoothing.smoothed(name, self._weights[name])

    def of_layer(self, index: int, name: str) -> Array:
        """A tensor of a layer's block."""
        return self[f"blocks.{index}.{name}"]


def _channel_sizes(network: Transformer) -> dict[str, Array]:
    """The root mean square of each channel of what products round, by the module that makes it or ("down") takes it.

    A head that is the embedding has no factors: they would be the embedding's, too.
    """
    found: dict[str, Array] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor | None = None) -> None:
            values = inputs[0] if output is None else output
            found[name] = values.flatten(0, -2).float().square().mean(0).sqrt().numpy()

        return hook

    handles = []
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in _READERS or (name == "norm" and network.head is not None):
            handles.append(module.register_forward_hook(keep(name)))
        elif isinstance(module, DenseFeedForward):
            handles.append(module.down.register_forward_pre_hook(keep(f"{name}.down")))
    config = network.config
    tokens = min(_TOKENS, config.max_position_embeddings)
    ids_BT = np.random.default_rng(_SEED).integers(0, config.vocab_size, (_SEQUENCES, tokens))
    try:
        with torch.no_grad():
            network(torch.from_numpy(ids_BT))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _factors(sizes_K: Array, readers: Iterable[Tensor]) -> Array:
    """Of a product's inputs, by their sizes and by the weights [..., K] that they are multiplied by; 1 in the mean."""
    squares = [weight.detach().float().square().flatten(0, -2).mean(0).numpy() for weight in readers]
    weights_K = np.sqrt(np.mean(squares, axis=0))
    if not (np.isfinite(sizes_K).all() and sizes_K.any() and weights_K.any()):
        return np.ones_like(sizes_K)
    sizes_K, weights_K = (np.maximum(size, _SMALLEST * size.max()) for size in (sizes_K, weights_K))
    logs_K = (np.log(sizes_K) - np.log(weights_K)) / 2
    factors: Array = np.exp(logs_K - logs_K.mean()).astype(np.float32)
    return factors
