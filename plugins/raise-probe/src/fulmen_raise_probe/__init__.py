"""A linear head on a model's own hidden states: a text in, calibrated findings out.

In: a model directory, labelled texts. Out: the verb `fulmen raise probe train`, the detector ``probe``.
May import: fulmen_core, fulmen_safety, numpy, safetensors; torch where a model is loaded.
"""
