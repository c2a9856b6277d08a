"""RAISE detectors of hateful and offensive language, learned.

In: text. Out: `Finding`s of the category `hate_discrimination`, each with a calibrated probability.
May import: `fulmen_safety`.
"""
