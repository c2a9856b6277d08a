"""The engine: turns requests of token ids into answers over one `Runner`, with continuous batching.

In: `GenerationRequest`s from any thread. Out: events of text. May import: fulmen_core,
`processes`; never HTTP, never a backend. `core` steps the model, on a thread or in a process of its own; `answer_text`
makes guarded text; `engine` owns both.
"""
