"""The weights of a new model: normal, with the projections that write to the residual stream scaled by depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from fulmen_core.model.config import ModelConfig

_WRITES_TO_RESIDUAL = ("o_proj.weight", "down.weight", "down_EFD")


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Draw all weights from N(0, std²); those that write to the residual stream get std/sqrt(2*layers). Norms stay one.

    std is `initializer_range`, or sqrt(2/(5*width)) (arXiv 1910.05895): 0.04 at 256 wide, 0.009 at 5120. The scaling by
    depth (GPT-2's) keeps the residual stream's variance from growing with it.
    """
    std = config.initializer_range or math.sqrt(2 / (5 * config.hidden_size))
    residual = std / math.sqrt(2 * config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=residual if name.endswith(_WRITES_TO_RESIDUAL) else std)


class SkipInitialisation(TorchFunctionMode):
    """While active, `torch.nn.init` does nothing: for a model on the meta device whose weights are read from files.

    A meta tensor has no values, but to "draw" them torch first imports its reference operators, for five seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Give back the tensor of an initialiser untouched; everything else runs as ever."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
