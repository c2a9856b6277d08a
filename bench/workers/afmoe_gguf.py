"""Write an AFMoE folder of Hugging Face's layout as a GGUF file in BF16, through llama.cpp's `gguf` package.

Names and keys as llama.cpp's own converter gives them (`conversion/afmoe.py`). A worker needs no vocabulary: token ids
go in and out. A server does: ``afmoe_gguf.py FOLDER OUT`` writes one too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_gguf(folder: Path, out: Path, *, vocabulary: bool = False) -> None:
    """Write `out` under a temporary name, then rename it."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.AFMOE, layers)
    unfinished = out.with_name(out.name + ".unfinished")
    writer = gguf.GGUFWriter(unfinished, "afmoe")
    _write_keys(writer, config)
    if vocabulary:
        from gguf_vocabulary import write_vocabulary

        write_vocabulary(writer, folder, config["vocab_size"])
    else:
        writer.add_tokenizer_model("none")
    for name, tensor in _tensors(folder, config):
        stem, _, suffix = name.rpartition(".")
        if suffix == "expert_bias":
            stem, suffix = name, "bias"
        target = names.get_name(stem)
        if target is None:
            raise KeyError(f"no GGUF name for {name}")
        _add(writer, f"{target}.{suffix}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(out)


def _write_keys(writer: Any, config: dict[str, Any]) -> None:
    import gguf

    writer.add_name("afmoe")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["num_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_leading_dense_block_count(config["num_dense_layers"])
    writer.add_expert_weights_norm(True)
    writer.add_expert_weights_scale(config["route_scale"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_sliding_window(config["sliding_window"])


def _tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every tensor of the folder as (name, bfloat16 bits or float32), the experts of a layer stacked into one."""
    experts: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in _read(path):
            if ".mlp.experts." not in name:
                yield name, tensor
                continue
            before, _, rest = name.partition(".mlp.experts.")
            number, _, part = rest.partition(".")
            stacked = f"{before}.mlp.experts.{part}"
            found = experts.setdefault(stacked, [None] * config["num_experts"])
            found[int(number)] = tensor
    for name, parts in experts.items():
        import numpy as np

        yield name, np.stack(parts)


def _read(path: Path) -> Iterator[tuple[str, Any]]:
    """Memory-mapped tensors of a safetensors file; NumPy has no bfloat16, so those come as their bits."""
    import numpy as np

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    types = {"BF16": np.uint16, "F32": np.float32}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield name, data[begin:end].view(types[entry["dtype"]]).reshape(entry["shape"])


def _add(writer: Any, name: str, tensor: Any) -> None:
    """Matrices stay BF16; vectors and the router become float32, as llama.cpp's converter has them."""
    import gguf
    import numpy as np

    small = tensor.ndim == 1 or name.endswith("ffn_gate_inp.weight")
    if tensor.dtype != np.uint16:
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float32))
    elif small:
        writer.add_tensor(name, (tensor.astype(np.uint32) << 16).view(np.float32))
    else:
        bits = np.ascontiguousarray(tensor)
        writer.add_tensor(name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)


if __name__ == "__main__":
    write_gguf(Path(sys.argv[1]), Path(sys.argv[2]), vocabulary=True)
