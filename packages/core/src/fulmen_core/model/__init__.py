"""The model: its config and layer plan, and the network itself.

In: a `ModelConfig` or a model directory. Out: `Transformer`, its checkpoints, the arithmetic of parameters and memory.
Torch-free: `config`, `layer_plan`, `kv`, `parameters`, `presets`, `config_file`, `safetensors_header`; the others
import torch. No sibling package is imported.
"""
