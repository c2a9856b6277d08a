"""Optimizers of every training stage: AdamW, and Muon with AdamW for what is not a matrix, behind one small object.

In: a model and an `OptimizerConfig`. Out: an `Optimizer`, whose state is a flat mapping of named tensors, fit for
safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fulmen_core.errors import CorruptArtefact
from fulmen_trainer.muon import Muon


class OptimizerConfig(BaseModel):
    """One learning rate for every group: Muon's updates are scaled to AdamW's root mean square (arXiv 2502.16982)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(1e-3, gt=0)  # at the peak of the schedule
    weight_decay: float = Field(0.1, ge=0)  # of matrices; norms, biases and embeddings have none
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    grad_clip: float = Field(1.0, ge=0)  # of the norm over all parameters; 0: none
    momentum: float = Field(0.95, ge=0, lt=1)  # of Muon


class ParameterGroups:
    """The trainable parameters of a model by treatment, each a mapping of name to parameter.

    Attributes:
        matrices: hidden matrices, 2-D or packed 3-D (one matrix an expert): Muon's, or AdamW with decay.
        decayed: heads and routers, whose rows are classes and not a map between hidden spaces: AdamW with decay.
        plain: embeddings, norms, biases: AdamW without decay.
    """

    def __init__(self, model: nn.Module) -> None:
        self.matrices: dict[str, nn.Parameter] = {}
        self.decayed: dict[str, nn.Parameter] = {}
        self.plain: dict[str, nn.Parameter] = {}
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            parts = name.split(".")
            if parameter.ndim < 2 or id(parameter) in embeddings:
                self.plain[name] = parameter
            elif any("router" in part or "head" in part for part in parts):
                self.decayed[name] = parameter
            else:
                self.matrices[name] = parameter


class Optimizer:
    """Clips, scales the learning rate, updates. Built by `build_optimizer`."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, products: torch.dtype) -> None:
        self.config = config
        groups = ParameterGroups(model)
        by_muon = groups.matrices if config.name == "muon" else {}
        decayed = groups.decayed if config.name == "muon" else {**groups.matrices, **groups.decayed}
        self._parameters = {**groups.matrices, **groups.decayed, **groups.plain}
        self._adam_parameters = {**decayed, **groups.plain}
        self._adamw = torch.optim.AdamW(
            [
                {"params": list(decayed.values()), "weight_decay": config.weight_decay},
                {"params": list(groups.plain.values()), "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )
        self._muon = (
            Muon(
                by_muon,
                lr=config.lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                products=products,
            )
            if by_muon
            else None
        )

    def step(self, lr_scale: float) -> float:
        """Clip the gradients, update every parameter at ``lr * lr_scale``, and forget the gradients.

        Returns:
            The norm of all gradients before clipping. If it is not finite nothing is updated.
        """
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            return float(norm)
        if self.config.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), self.config.grad_clip, norm)
        for group in self._adamw.param_groups:
            group["lr"] = self.config.lr * lr_scale
        self._adamw.step()
        if self._muon is not None:
            self._muon.step(lr_scale)
        self.zero_grad()
        return float(norm)

    def zero_grad(self) -> None:
        """Free all gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """The state as tensors named ``PARAMETER.KIND``: ``exp_avg``, ``exp_avg_sq``, ``step`` or ``momentum``."""
        state = {
            f"{name}.{kind}": value
            for name, parameter in self._adam_parameters.items()
            for kind, value in self._adamw.state.get(parameter, {}).items()
        }
        return state | (self._muon.state_dict() if self._muon is not None else {})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            CorruptArtefact: a tensor belongs to no parameter of this optimizer or has another shape.
        """
        state = dict(state)
        if self._muon is not None:
            self._muon.load_state_dict(
                {name: state.pop(name) for name in list(state) if name.endswith(".momentum")},
            )
        self._adamw.state.clear()
        for name, tensor in state.items():
            parameter_name, _, kind = name.rpartition(".")
            parameter = self._adam_parameters.get(parameter_name)
            if parameter is None or (kind != "step" and tensor.shape != parameter.shape):
                raise CorruptArtefact(f"optimizer state {name!r} fits no parameter", remedy="was the recipe changed?")
            self._adamw.state[parameter][kind] = tensor.to(parameter.device, copy=True)


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, products: torch.dtype = torch.float32) -> Optimizer:
    """The optimizer of `config` over the trainable parameters of `model`.

    Args:
        model: its parameters are updated in place.
        config: what to build.
        products: what Muon multiplies matrices in; bfloat16 is enough for it, where the processor multiplies bfloat16
        fast.
    """
    return Optimizer(model, config, products)
