"""PEFT's `adapter_config.json`: ranks and scalings of a LoRA adapter, and a refusal of all that is more than that.

Checked against PEFT 0.21. Keys that matter to training alone are passed over; one that changes what an adapter
computes, or that is not known, is refused by name unless it is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from pathlib import Path
from typing import Any, TypeVar

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import read_json

CONFIG_FILE = "adapter_config.json"

Number = TypeVar("Number", int, float)

_USED = {
    *("peft_type", "base_model_name_or_path", "bias", "init_lora_weights"),
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
}
#: About training, about where things came from, or defaults of variants that are refused where they are chosen.
_PASSED_OVER = {
    *("task_type", "inference_mode", "revision", "auto_mapping", "peft_version", "lora_dropout", "merge_weights"),
    *("megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
    *("runtime_config", "ensure_weight_tying"),
}
_REFUSED = {
    "use_dora": "DoRA is not served",
    "lora_bias": "biases of adapters are not served",
    "modules_to_save": "modules that were trained whole are not served",
    "fan_in_fan_out": "weights stored the other way round are not served",
    "trainable_token_indices": "embeddings are served as they are",
    "target_parameters": "routed experts and routers are served as they are",
    "layer_replication": "repeated layers are not served",
    "alora_invocation_tokens": "adapters that begin at some tokens (aLoRA) are not served",
    "use_qalora": "QA-LoRA is not served",
}
#: Beginnings of adapters that leave the model as it is; others subtract theirs from its weights.
_BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """What `adapter_config.json` says.

    Attributes:
        where: the file, for sentences.
        base_model: the model that the adapter was trained on, as its author called it; empty if unknown.
        rank, alpha: of modules that no pattern names.
        rank_pattern, alpha_pattern: by regular expressions of modules' names; the first that matches counts.
        rank_stabilised: whether the scaling is ``alpha / sqrt(rank)`` (arXiv 2312.03732), not ``alpha / rank``.
        targets, excluded: a regular expression, or names or their last parts; targets None: whatever has tensors.
        layers: the only layers, if not None.
        layers_pattern: the names of lists of layers that `layers` counts; empty: any.
    """

    where: str
    base_model: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rank_stabilised: bool
    targets: str | tuple[str, ...] | None
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> PeftConfig:
        """Read the config in `directory`.

        Raises:
            UserError: there is none, or it asks for what is not served.
            CorruptArtefact: it is not JSON, or a value is of the wrong kind.
        """
        path = directory / CONFIG_FILE
        document = read_json(path, "adapter config")
        if not isinstance(document, dict):
            raise CorruptArtefact("the adapter config is not a JSON object", where=str(path))
        return _Reading(document, str(path)).config()

    def rank_of(self, module: str) -> int:
        """The rank that `module` should have."""
        return _matching(self.rank_pattern, module, self.rank)

    def scaling_of(self, module: str) -> float:
        """What ``B A x`` is multiplied by in `module`."""
        rank = self.rank_of(module)
        alpha = _matching(self.alpha_pattern, module, self.alpha)
        return alpha / (sqrt(rank) if self.rank_stabilised else rank)

    def covers(self, module: str) -> bool:
        """Whether PEFT would change `module`: one that it would not means tensors of another config."""
        if self.excluded and _named(module, self.excluded):
            return False
        if self.targets is None:
            return True
        if isinstance(self.targets, str):
            return self.targets == "all-linear" or _named(module, self.targets)
        return _named(module, self.targets) and (self.layers is None or self._layer_of(module) in self.layers)

    def _layer_of(self, module: str) -> int | None:
        patterns = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in self.layers_pattern] or [r".*?\.[^.]*\.(\d+)\."]
        found = next(filter(None, (re.match(pattern, module) for pattern in patterns)), None)
        return int(found[1]) if found else None


def _named(module: str, names: str | tuple[str, ...]) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _matching(patterns: Mapping[str, Number], module: str, otherwise: Number) -> Number:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), otherwise)


class _Reading:
    """One document and where it lies, for sentences."""

    def __init__(self, document: Mapping[str, Any], where: str) -> None:
        self.document, self.where = document, where

    def config(self) -> PeftConfig:
        document = self.document
        if document.get("peft_type") != "LORA":
            raise self.refuse("peft_type", "adapters of type 'LORA' are served")
        for key, value in document.items():
            if key not in _USED | _PASSED_OVER and value not in (None, False, "", [], {}):
                raise self.refuse(key, _REFUSED.get(key, "it is not known and may change what the adapter computes"))
        if document.get("bias", "none") != "none":
            raise self.refuse("bias", "biases that were trained along are not served")
        begun = document.get("init_lora_weights", True)
        if not (begun is None or isinstance(begun, bool) or (isinstance(begun, str) and begun.lower() in _BEGINNINGS)):
            raise self.refuse(
                "init_lora_weights", "it changes the model's weights; convert it to a plain LoRA with PEFT"
            )
        config = PeftConfig(
            where=self.where,
            base_model=self.text("base_model_name_or_path"),
            rank=self.rank("r", document.get("r", 8)),
            alpha=self.number("lora_alpha", document.get("lora_alpha", 8)),
            rank_pattern={key: self.rank("rank_pattern", value) for key, value in self.patterns("rank_pattern")},
            alpha_pattern={key: self.number("alpha_pattern", value) for key, value in self.patterns("alpha_pattern")},
            rank_stabilised=self.flag("use_rslora"),
            targets=self.names("target_modules") if document.get("target_modules") else None,
            excluded=self.names("exclude_modules"),
            layers=self.layers(),
            layers_pattern=self.listed("layers_pattern"),
        )
        self.compile(config)
        return config

    def refuse(self, key: str, remedy: str) -> UserError:
        """The error for a key that asks for what is not served."""
        return UserError(f"{key} is {self.document.get(key)!r}", where=self.where, remedy=remedy)

    def wrong(self, key: str, kind: str) -> CorruptArtefact:
        """The error for a value of the wrong kind."""
        return CorruptArtefact(f"{key} {self.document.get(key)!r} is no {kind}", where=self.where)

    def text(self, key: str) -> str:
        """A text, empty if there is none."""
        value = self.document.get(key) or ""
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def flag(self, key: str) -> bool:
        """True or false, false if there is none."""
        value = self.document.get(key) or False
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def rank(self, key: str, value: Any) -> int:
        """A rank."""
        if type(value) is not int or not 0 < value < 2**31:
            raise self.wrong(key, "rank of 1 or more")
        return value

    def number(self, key: str, value: Any) -> float:
        """A finite number."""
        try:
            number = float(value) if type(value) in (int, float) else nan
        except OverflowError:
            number = nan
        if not isfinite(number):
            raise self.wrong(key, "number")
        return number

    def patterns(self, key: str) -> list[tuple[str, Any]]:
        """The entries of a table by patterns."""
        value = self.document.get(key) or {}
        if not isinstance(value, dict):
            raise self.wrong(key, "table")
        return list(value.items())

    def names(self, key: str) -> str | tuple[str, ...]:
        """A regular expression, or names; empty if there are none."""
        value = self.document.get(key) or ()
        return value if isinstance(value, str) else self.listed(key)

    def listed(self, key: str) -> tuple[str, ...]:
        """A text or several, as several."""
        value = self.document.get(key) or ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise self.wrong(key, "list of texts")
        return tuple(items)

    def layers(self) -> tuple[int, ...] | None:
        """The only layers that are changed; None if all may be."""
        value = self.document.get("layers_to_transform")
        items = [value] if type(value) is int else value or []
        if not isinstance(items, list) or not all(type(item) is int for item in items):
            raise self.wrong("layers_to_transform", "layer or list of layers")
        return tuple(items) or None

    def compile(self, config: PeftConfig) -> None:
        """Refuse regular expressions that are none, before one is used."""
        texts = [names for names in (config.targets, config.excluded) if isinstance(names, str)]
        for pattern in (*texts, *config.rank_pattern, *config.alpha_pattern, *config.layers_pattern):
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise CorruptArtefact(f"{pattern!r} is no regular expression", where=self.where) from error
