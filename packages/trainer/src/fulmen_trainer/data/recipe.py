"""The recipe of a data run: sources, guard and tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

#: A source's name becomes the name of files and folders.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class SourceConfig(BaseModel):
    """One source: which, with what settings, and what its documents are for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    settings: dict[str, Any] = {}
    #: The tokenizer never sees held-out documents, and no training document repeats one.
    purpose: Literal["train", "heldout"] = "train"


class GuardConfig(BaseModel):
    """RAISE-1: the guard that judges the documents ("none" for none), its policy, when its faults stop the run, and
    whether what it found is written into the records."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "raise"
    policy: Path | None = None
    max_quarantine_rate: float = Field(default=0.01, ge=0, le=1)
    label: bool = False  # whether kept records say what was found in them


class TokenizerConfig(BaseModel):
    """A tokenizer directory to use, or the size of the vocabulary to train on this run's training documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = None
    vocab_size: int = 4096


def standard_library() -> dict[str, SourceConfig]:
    """What is on every machine: the standard library's files to train on, and a twentieth of them held out."""
    return {
        "stdlib": SourceConfig(source="python-stdlib", settings={"split": "train"}),
        "stdlib-heldout": SourceConfig(source="python-stdlib", settings={"split": "heldout"}, purpose="heldout"),
    }


class DataRecipe(BaseModel):
    """The whole recipe of `fulmen data build`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Path("runs/data")
    sources: dict[str, SourceConfig] = Field(default_factory=standard_library, min_length=1)
    guard: GuardConfig = GuardConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in sources:
            if not _NAME.fullmatch(name):
                raise ValueError(f"source name {name!r} may only have a-z, 0-9, '.', '_' and '-'")
        return sources

    @model_validator(mode="after")
    def _something_to_train_on(self) -> DataRecipe:
        if all(source.purpose == "heldout" for source in self.sources.values()):
            raise ValueError("every source is held out; at least one must be for training")
        return self


class TokenizerRecipe(BaseModel):
    """The whole recipe of `fulmen tokenizer train`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path = Path("runs/tokenizer")
    vocab_size: int = 4096
    sources: dict[str, SourceConfig] = Field(
        default_factory=lambda: {"stdlib": SourceConfig(source="python-stdlib", settings={"split": "train"})},
        min_length=1,
    )
