"""Likeness to examples: a text in, findings of the categories whose examples it is near to out.

In: files of examples per category and of ordinary texts, an embedder. Out: the detector ``semantic``.
May import: fulmen_core, fulmen_safety, numpy.
"""
