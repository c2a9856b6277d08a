"""What every other part of Fulmen stands on: hooks, the plugin registry, settings, runs, the model and its layer plan.

In: nothing of Fulmen. Out: protocols, descriptors and the model definition that all other parts share.
May import: the standard library, pluggy, pydantic; torch only below `fulmen_core.model`; never a sibling package or a
plugin.
"""
