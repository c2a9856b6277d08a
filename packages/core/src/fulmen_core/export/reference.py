"""What a checkpoint answers, as NumPy arrays: kept in its artefact, which can then be compared without it.

Legend: T tokens of a sequence, V vocabulary, P compared positions, G greedy answers, A tokens of each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import CorruptArtefact

REFERENCE_FILE = "parity.npz"


@dataclass(frozen=True)
class Reference:
    """Logits in float32 after some tokens of some sequences, and greedy answers.

    Attributes:
        tokens: int32, those of all sequences one after the other. lengths: int32, of each.
        positions_P2: int32, sequence and position. Rounding decides no expert before them.
        logits_PV: float32, after the token there.
        routing_margin_P: float32, by how much the last chosen expert's score exceeds the first that was not chosen, the
            smallest of all layers at that token; 1 without experts.
        prompts: int32 [G, tokens]. answers_GA: int32.
        margin_GA: float32, by how much the chosen token's logit exceeds the next; negative once an expert's choice hung
            on rounding.
        seed: of the prompts.
    """

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    positions_P2: NDArray[np.int32]
    logits_PV: NDArray[np.float32]
    routing_margin_P: NDArray[np.float32]
    prompts: NDArray[np.int32]
    answers_GA: NDArray[np.int32]
    margin_GA: NDArray[np.float32]
    seed: NDArray[np.int64]

    def sequences(self) -> list[list[int]]:
        """The tokens of each sequence."""
        return [part.tolist() for part in np.split(self.tokens, np.cumsum(self.lengths)[:-1])]

    def save(self, directory: Path) -> None:
        """Write it into an artefact that is being made."""
        np.savez(directory / REFERENCE_FILE, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, directory: Path) -> Reference:
        """Read it from an artefact.

        Raises:
            CorruptArtefact: it is missing or no such file.
        """
        path = directory / REFERENCE_FILE
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise CorruptArtefact(
                "the artefact has no reference to be compared with", where=str(path), remedy="export the model again"
            ) from error
