"""Muon: momentum whose update is brought to orthogonal matrices (Jordan et al. 2024), batched over equal shapes.

Packed expert tensors ``[E, rows, columns]`` count as E matrices; `torch.optim.Muon` refuses them. Updates are scaled by
``0.2 * sqrt(max(rows, columns))``, which gives them the root mean square of AdamW's (arXiv 2502.16982, section 2.2), so
that one learning rate serves both.

A weight that stacks two maps (gate over up, keys over values) counts as two matrices, which also costs half.

Legend: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fulmen_core.errors import CorruptArtefact

#: Coefficients of the quintic iteration: steepest at zero, and converging to [0.7, 1.2] rather than to 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
RMS_OF_ADAMW = 0.2

#: Parts of the names of weights that hold two maps, one above the other.
STACKED = ("gate_up", "kv_proj")


def matrix_shape(name: str, parameter: Tensor) -> tuple[int, int]:
    """Rows and columns of each matrix that the weight called `name` holds."""
    rows, columns = parameter.shape[-2:]
    return (rows // 2 if any(part in name for part in STACKED) else rows), columns


def orthogonalise(x_NRC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """For each matrix U S Vᵀ of the batch, about U Vᵀ: singular values in [0.7, 1.2], by five Newton-Schulz steps.

    Args:
        x_NRC: batch of matrices, float; may be transposed inside, so that the Gram matrix is the small one.
        dtype: what the products are computed in.

    Returns:
        ``[N, R, C]`` in `dtype`.
    """
    a, b, c = NEWTON_SCHULZ
    y_NRC: Tensor = x_NRC.to(dtype)
    tall = y_NRC.shape[1] > y_NRC.shape[2]
    if tall:
        y_NRC = y_NRC.mT
    y_NRC = y_NRC / (y_NRC.norm(dim=(1, 2), keepdim=True) * (1 + 1e-4) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram_NRR = y_NRC @ y_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        polynomial_NRR.diagonal(dim1=1, dim2=2).add_(a)
        y_NRC = polynomial_NRR @ y_NRC
    return y_NRC.mT if tall else y_NRC


class Muon:
    """Muon over named 2-D and packed 3-D parameters, with Nesterov momentum and decoupled weight decay."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        products: torch.dtype = torch.float32,
    ) -> None:
        self._parameters = dict(parameters)
        self._products = products
        self._lr, self._momentum, self._weight_decay = lr, momentum, weight_decay
        self._buffers: dict[str, Tensor] = {}
        self._by_shape: dict[tuple[int, int], list[str]] = {}
        for name, parameter in self._parameters.items():
            self._by_shape.setdefault(matrix_shape(name, parameter), []).append(name)

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Update every parameter that has a gradient, at ``lr * lr_scale``."""
        rate = self._lr * lr_scale
        for (rows, columns), names in self._by_shape.items():
            names = [name for name in names if self._parameters[name].grad is not None]
            if not names:
                continue
            directions = [self._direction(name).view(-1, rows, columns) for name in names]
            updates_NRC = orthogonalise(torch.cat(directions), self._products)
            scale = -rate * RMS_OF_ADAMW * math.sqrt(max(rows, columns))
            start = 0
            for name, direction in zip(names, directions, strict=True):
                update_NRC, start = updates_NRC[start : start + len(direction)], start + len(direction)
                parameter = self._parameters[name]
                parameter.mul_(1 - rate * self._weight_decay).add_(update_NRC.reshape(parameter.shape), alpha=scale)

    def _direction(self, name: str) -> Tensor:
        """Nesterov's look-ahead of the momentum, after taking in the gradient."""
        gradient = self._parameters[name].grad
        assert gradient is not None
        buffer = self._buffers.setdefault(name, torch.zeros_like(gradient))
        buffer.lerp_(gradient, 1 - self._momentum)
        return gradient.lerp(buffer, self._momentum)

    def state_dict(self) -> dict[str, Tensor]:
        """The momenta, named ``PARAMETER.momentum``."""
        return {f"{name}.momentum": buffer for name, buffer in self._buffers.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned. Raises `CorruptArtefact` if a momentum fits no parameter."""
        self._buffers = {}
        for key, buffer in state.items():
            name = key.removesuffix(".momentum")
            if name not in self._parameters or self._parameters[name].shape != buffer.shape:
                raise CorruptArtefact(f"optimizer state {key!r} fits no parameter", remedy="was the recipe changed?")
            self._buffers[name] = buffer.to(self._parameters[name].device, copy=True)
