"""LoRA adapters (arXiv 2106.09685) in PEFT's folders: small low-rank changes of a model's projections.

In: a folder with `adapter_config.json` and `adapter_model.safetensors`, and the config of the model it is for. Out:
what the adapter is (`description`, torch-free, from headers alone), its arrays (`adapter`), or the numbers under which
a runner holds it (`loaded`). May import: `fulmen_core.model`, `fulmen_core.files`; PEFT is not needed.
"""
