"""The model: its config and layer plan (torch-free: `config`, `layer_plan`, `kv`, `presets`), and the network itself.

In: a `ModelConfig` or a model directory. Out: `Transformer`, its checkpoints, and the arithmetic of its memory.
May import: torch in `rope`, `norm`, `attention`, `router`, `experts`, `balance`, `transformer`, `checkpoint`; no sibling package.
"""
