"""RAISE detectors of hateful and offensive language, learned, and of stereotypes, by words.

In: text. Out: `Finding`s of the category `hate_discrimination`; a learned detector's with a calibrated probability.
May import: `fulmen_safety`.
"""
