"""CUDA tensors without a GPU: PyTorch's fake tensors, which have shape, dtype, layout and device but no memory.

Every operator checks what it is given as it would on a GPU (its meta kernel does), those that a GPU alone has among
them, and refuses tensors of two devices. Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer

DEVICE = torch.device("cuda")


class _ByOperators(TorchFunctionMode):
    """Methods by operators whose own way asks for CUDA itself, which may not be built in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            return _index(*args)
        if func is Tensor.to:
            return _moved(*args, **(kwargs or {}))
        if func is Tensor.contiguous:
            return _contiguous(*args)
        return func(*args, **(kwargs or {}))


def _moved(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    copy = kwargs.pop("copy", False)
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)  # type: ignore[attr-defined]
    dtype = dtype or x.dtype
    if (device is None or device.type == x.device.type) and dtype is x.dtype and not copy:
        return x
    return torch.ops.aten._to_copy.default(x, dtype=dtype, device=device)  # type: ignore[no-any-return]


def _contiguous(x: Tensor) -> Tensor:
    if x.is_contiguous():
        return x
    return torch.ops.aten.clone.default(x, memory_format=torch.contiguous_format)  # type: ignore[no-any-return]


def _index(x: Tensor, index: Any) -> Tensor:
    parts = index if isinstance(index, tuple) else (index,)
    if any(part is Ellipsis for part in parts):
        at = [part is Ellipsis for part in parts].index(True)
        given = sum(part is not None and part is not Ellipsis for part in parts)
        parts = (*parts[:at], *[slice(None)] * (x.ndim - given), *parts[at + 1 :])
    dim = 0
    for part in parts:
        if part is None:
            x = x.unsqueeze(dim)
        elif isinstance(part, slice):
            x = torch.ops.aten.slice.Tensor(x, dim, part.start, part.stop, part.step or 1)
        elif isinstance(part, int):
            x, dim = x.select(dim, part), dim - 1
        else:
            x = torch.ops.aten.index.Tensor(x, [None] * dim + [part])
        dim += 1
    return x


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors that are made on "cuda" within are fake ones."""
    with FakeTensorMode(), _ByOperators():
        yield


@contextmanager
def autocast() -> Iterator[None]:
    """Autocast of CUDA tensors to bfloat16; `torch.autocast` leaves it off where there is no GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def fake_model(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    """A model on the fake GPU."""
    with torch.device("meta"):
        model = Transformer(config)
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            kept = tensor.dtype if isinstance(tensor, nn.Parameter) is False else dtype
            fake = torch.empty(tensor.shape, dtype=kept, device=DEVICE)
            setattr(module, name, nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake)
    model.to = lambda *_: model  # type: ignore[method-assign]  # it is there, and fakes cannot be swapped in place
    return model
