"""RAISE-1's judgement of quality: a document in, findings of the category ``low_quality`` out, each with its reason.

In: documents. Out: the detector ``quality``; the verbs `fulmen raise quality train` and `report`.
May import: fulmen_core, fulmen_safety, numpy, safetensors.
"""
