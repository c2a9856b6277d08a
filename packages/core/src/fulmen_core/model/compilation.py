"""Compilation of a model by torch, with a way back where this machine cannot compile."""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import nn

logger = logging.getLogger(__name__)


def compile_or_keep(model: nn.Module, device: str = "cpu") -> tuple[nn.Module, str]:
    """`model` compiled, and "yes"; or `model` itself, and why it could not be compiled (logged once)."""
    if reason := why_not_compiled(device):
        logger.warning("training runs uncompiled: %s", reason)
        return model, f"no: {reason}"
    return cast("nn.Module", torch.compile(model)), "yes"


def why_not_compiled(device: str) -> str:
    """Why nothing can be compiled for `device` here, or an empty text.

    A function of two lines is compiled and run: that meets a missing compiler, missing Python headers or an unwritable
    cache within a second or two, and not in the middle of the first step.
    """
    try:
        probe = torch.compile(lambda x: x.sin() + 1, fullgraph=True)
        probe(torch.zeros(8, device=device))
    except Exception as error:  # dynamo wraps whatever the C++ toolchain throws
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""
