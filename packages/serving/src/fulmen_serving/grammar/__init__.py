"""What an answer must be: JSON of a schema, a regex, one of some choices, a grammar, tool calls.

In: the wishes of a request and the tokenizer. Out: the text of a grammar, and constraints that the engine's sampler
asks. May import: fulmen_core and, when a request needs it, llguidance; never HTTP, never the engine.
"""
