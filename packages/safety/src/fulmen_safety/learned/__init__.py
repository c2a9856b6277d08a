"""Learned detectors: a linear model over hashed n-grams, how it is trained, and the detectors that it makes.

In: labelled rows (`rows`), a text. Out: a folder with `model.safetensors` and its data card (`artefact`), detectors of
    whole texts (`window_detector`) and of streams (`prefix_detector`).
May import: `fulmen_core`, `fulmen_safety`, numpy, safetensors. scikit-learn and torch only in training, when called.
"""
