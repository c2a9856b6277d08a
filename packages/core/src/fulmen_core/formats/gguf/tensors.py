"""Which tensors of a GGUF file make up each tensor of a Fulmen model, and how they are joined.

Legend: E experts, D model width, F expert width, R rows of a projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fulmen_core.formats.gguf.blocks import dequantise
from fulmen_core.formats.gguf.container import GgufFile
from fulmen_core.formats.gguf.fields import Fields
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.parameters import Shape, parameter_shapes

if TYPE_CHECKING:
    from torch import Tensor

#: Tensors that are no weights: frequencies, which the config has taken in.
FREQUENCIES = "rope_freqs.weight"

_WHOLE = {"embed.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "head.weight": "output.weight"}

#: Tensor of a Fulmen block -> the tensors of a GGUF block that are joined in it.
_PARTS: dict[str, tuple[str, ...]] = {
    "attention_norm.weight": ("attn_norm.weight",),
    "attention.q_proj.weight": ("attn_q.weight",),
    "attention.kv_proj.weight": ("attn_k.weight", "attn_v.weight"),
    "attention.o_proj.weight": ("attn_output.weight",),
    "attention.gate_proj.weight": ("attn_gate.weight",),
    "attention.q_norm.weight": ("attn_q_norm.weight",),
    "attention.k_norm.weight": ("attn_k_norm.weight",),
    "attention_post_norm.weight": ("post_attention_norm.weight",),
    "ffn_norm.weight": ("ffn_norm.weight",),
    "ffn_post_norm.weight": ("post_ffw_norm.weight",),
    "ffn.gate_up.weight": ("ffn_gate.weight", "ffn_up.weight"),
    "ffn.down.weight": ("ffn_down.weight",),
    "ffn.router.weight": ("ffn_gate_inp.weight",),
    "ffn.router.bias": ("exp_probs_b.bias",),
    "ffn.experts.gate_up_EGD": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
    "ffn.experts.down_EFD": ("ffn_down_exps.weight",),
    "ffn.shared.gate_up.weight": ("ffn_gate_shexp.weight", "ffn_up_shexp.weight"),
    "ffn.shared.down.weight": ("ffn_down_shexp.weight",),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor comes from: the names of its parts in the file, and what is done to each and to all."""

    names: tuple[str, ...]
    heads: tuple[int, ...]  # for each part, how many heads its rows are to be sorted for; 0 leaves them
    axis: int = 0
    transposed: bool = False


def sources(config: ModelConfig, *, interleaved: bool) -> dict[str, Source]:
    """The source of every tensor of the model."""
    found: dict[str, Source] = {}
    for name in parameter_shapes(config):
        if name in _WHOLE:
            found[name] = Source((_WHOLE[name],), (0,))
            continue
        _, index, local = name.split(".", 2)
        names = tuple(f"blk.{index}.{part}" for part in _PARTS[local])
        heads = (0,) * len(names)
        if interleaved and local == "attention.q_proj.weight":
            heads = (config.num_attention_heads,)
        if interleaved and local == "attention.kv_proj.weight":
            heads = (config.num_key_value_heads, 0)
        experts = local.startswith("ffn.experts.")
        found[name] = Source(names, heads, axis=1 if experts else 0, transposed=local == "ffn.experts.down_EFD")
    return found


def check_tensors(file: GgufFile, fields: Fields, config: ModelConfig, found: Mapping[str, Source]) -> None:
    """Refuse a file whose tensors are not exactly those that its metadata describe.

    Raises:
        CorruptArtefact: a tensor is missing or has another shape than the metadata say; names it.
        UserError: the file has a tensor that has no place in the model, for example a bias.
    """
    shapes = parameter_shapes(config)
    for name, source in found.items():
        for part in source.names:
            if part not in file.tensors:
                raise file.corrupt(f"tensor {part!r} is missing")
        stored = [file.tensors[part].shape for part in source.names]
        if _joined(stored, source, file) != shapes[name]:
            parts = " and ".join(f"{part!r} {shape}" for part, shape in zip(source.names, stored, strict=True))
            raise file.corrupt(f"tensor {parts} does not have the shape that the metadata say")
    placed = {part for source in found.values() for part in source.names} | {FREQUENCIES}
    strangers = [name for name in file.tensors if name not in placed]
    if strangers:
        raise fields.refuse(f"tensor {strangers[0]!r} has no place in a {fields.architecture} model")


def loader(file: GgufFile, found: Mapping[str, Source]) -> Callable[[str], Tensor]:
    """A function that reads one tensor of the model: stored floats as they are, quantised ones in float32."""

    def load(name: str) -> Tensor:
        import torch

        source = found[name]
        parts = [
            _sorted(read_tensor(file, part), heads) for part, heads in zip(source.names, source.heads, strict=True)
        ]
        if len({part.dtype for part in parts}) > 1:
            parts = [part.float() for part in parts]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, source.axis)
        return whole.transpose(-1, -2).contiguous() if source.transposed else whole

    return load


def read_tensor(file: GgufFile, name: str) -> Tensor:
    """One tensor of the file, copied out of it."""
    import torch

    info = file.tensors[name]
    stored = file.blocks(name)
    if info.kind.expand is not None:
        return torch.from_numpy(dequantise(info.kind, stored)).reshape(info.shape)
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[info.kind.name]
    return torch.from_numpy(np.array(stored)).view(dtype).reshape(info.shape)


def _joined(stored: Sequence[Shape], source: Source, file: GgufFile) -> Shape:
    """The shape of the joined parts."""
    first = stored[0]
    axis = source.axis if len(first) > source.axis else 0
    if any(len(shape) != len(first) or shape[axis + 1 :] != first[axis + 1 :] for shape in stored):
        raise file.corrupt(f"tensors {' and '.join(map(repr, source.names))} do not fit each other")
    joined = (*first[:axis], sum(shape[axis] for shape in stored), *first[axis + 1 :])
    return (*joined[:-2], joined[-1], joined[-2]) if source.transposed else joined


def _sorted(tensor_R: Tensor, heads: int) -> Tensor:
    """Sort a head's rows from rotary pairs (2j, 2j+1) into halves (j, j + h/2): undoes the converter's `permute`."""
    if not heads:
        return tensor_R
    rows = tensor_R.reshape(heads, -1, 2, *tensor_R.shape[1:])
    return rows.transpose(1, 2).reshape(tensor_R.shape)
