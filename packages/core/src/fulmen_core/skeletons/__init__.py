"""Skeletons of plugins: what `fulmen plugins new` writes.

In: a kind and a name. Out: a folder with a whole, tested distribution. May import: `fulmen_core`.
"""
