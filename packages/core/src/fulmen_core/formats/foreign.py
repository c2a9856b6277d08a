"""A checkpoint of another project, seen through Fulmen's names: what every reader of a format returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fulmen_core.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ForeignCheckpoint:
    """What a reader found, checked against the files' lengths before memory for any tensor is taken.

    Attributes:
        family: what its own project calls the architecture: "llama", "qwen3_moe", "afmoe", ...
        config: the same model in Fulmen's terms.
        load: gives the tensor of a name of `fulmen_core.model.parameters.parameter_shapes(config)`, in Fulmen's layout
            and the stored precision (quantised formats are expanded to float32). Reads one tensor at a time: a model
            never has to lie in memory twice.
        tokenizer_files: contents of `tokenizer.json`, `tokenizer_config.json`, ... by file name; empty if there are
            none. A `generation_config.json` with defaults of sampling may be among them.
    """

    family: str
    config: ModelConfig
    load: Callable[[str], Tensor]
    tokenizer_files: Mapping[str, str]
