"""A fine-tuned BERT of transformers as the weights that NumPy runs, and such weights in a file of their own: what
`fulmen raise train --encoder` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from fulmen_core.errors import UserError
from fulmen_safety.learned import four_bits
from fulmen_safety.learned.bert import LONGEST, Bert, from_tensors, tensors
from fulmen_safety.learned.encoder import Layer, Matrix
from fulmen_safety.learned.wordpiece import WordPiece

_REMEDY = "give the file that bench/raise_training/student.py wrote"


def of_transformers(
    state: Mapping[str, Matrix], head: Matrix, bias: float, *, heads: int, pieces: Sequence[str], rows_V: Sequence[int]
) -> Bert:
    """Return the weights of a `transformers.BertModel`.

    Args:
        state: its `state_dict`, float32.
        head: [D], of the logit over the mean of the last states; `bias` is the logit's.
        heads: of attention.
        pieces: of the vocabulary that is kept; `rows_V` are their rows in the model's own.
    """

    def half(value: Matrix) -> Matrix:
        return np.ascontiguousarray(value.astype(np.float16).astype(np.float32))

    def layer(place: int) -> Layer:
        at = f"encoder.layer.{place}."
        three = [f"{at}attention.self.{name}" for name in ("query", "key", "value")]
        return Layer(
            qkv=np.concatenate([state[f"{name}.weight"].T for name in three], 1),
            qkv_bias=half(np.concatenate([state[f"{name}.bias"] for name in three])),
            out=state[at + "attention.output.dense.weight"].T,
            out_bias=half(state[at + "attention.output.dense.bias"]),
            norm_1=half(state[at + "attention.output.LayerNorm.weight"]),
            norm_1_bias=half(state[at + "attention.output.LayerNorm.bias"]),
            up=state[at + "intermediate.dense.weight"].T,
            up_bias=half(state[at + "intermediate.dense.bias"]),
            down=state[at + "output.dense.weight"].T,
            down_bias=half(state[at + "output.dense.bias"]),
            norm_2=half(state[at + "output.LayerNorm.weight"]),
            norm_2_bias=half(state[at + "output.LayerNorm.bias"]),
        )

    words, scale = four_bits.rounded(state["embeddings.word_embeddings.weight"][np.array(rows_V)])
    count = len({name for name in state if name.endswith("intermediate.dense.weight")})
    places = (
        state["embeddings.position_embeddings.weight"][:LONGEST] + state["embeddings.token_type_embeddings.weight"][0]
    )
    return Bert(
        wordpiece=WordPiece(pieces),
        words=words,
        word_scale=scale,
        places=half(places),
        norm=half(state["embeddings.LayerNorm.weight"]),
        norm_bias=half(state["embeddings.LayerNorm.bias"]),
        layers=tuple(layer(place) for place in range(count)),
        head=half(head),
        bias=float(bias),
        heads=heads,
    )


def write_bert(path: Path, bert: Bert) -> None:
    """Write the weights to a safetensors file."""
    save_file({name: np.ascontiguousarray(value) for name, value in tensors(bert).items()}, str(path))


def read_bert(path: Path) -> Bert:
    """Read weights that `write_bert` wrote.

    Raises:
        UserError: there are none.
    """
    try:
        named: Mapping[str, NDArray[np.generic]] = load(path.read_bytes())
        return from_tensors(named)
    except OSError as error:
        raise UserError(f"cannot read it: {error.strerror or error}", where=str(path), remedy=_REMEDY) from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"no weights of an encoder: {error}", where=str(path), remedy=_REMEDY) from error
