"""The model: its config and layer plan, and the network itself.

In: a `ModelConfig` or a model directory. Out: `Transformer`, its checkpoints, and the arithmetic of its parameters and memory.
Torch-free: `config`, `layer_plan`, `kv`, `parameters`, `presets`, `config_file`, `safetensors_header`; the other modules
import torch. No sibling package is imported.
"""
