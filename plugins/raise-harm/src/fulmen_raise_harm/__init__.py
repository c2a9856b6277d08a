"""RAISE detectors of harmful requests and of harmful answers, learned, by category.

In: text. Out: `Finding`s of twelve categories and more of the taxonomy, each with a calibrated probability.
May import: `fulmen_safety`.
"""
