"""The engine: turns requests of token ids into answers over one `Runner`, with continuous batching.

In: `GenerationRequest`s from any thread. Out: events of text. May import: fulmen_core; never HTTP, never a backend.
`core` steps the model on one thread, `answer_text` makes guarded text on another, `engine` owns both.
"""
