"""A learned tagger of names, places, addresses and the like in English text: a linear chain over hashed features.

In: text. Out: spans by kind. May import: `fulmen_safety`, NumPy, safetensors. `training` makes its weights and is
imported by nothing else.
"""
