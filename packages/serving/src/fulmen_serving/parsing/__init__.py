"""The parts of an answer's text: reasoning, what is said, calls of tools.

In: text in pieces of any length, as the guard has let it through. Out: parts, the same ones however the text was cut:
what a stream carries and what a whole answer holds come from the same parser. May import: fulmen_core; never the
engine, never HTTP.
"""
