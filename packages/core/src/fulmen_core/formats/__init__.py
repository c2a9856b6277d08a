"""Open checkpoints: other projects' files in, a Fulmen model directory out, and back.

In: a Hugging Face folder or a GGUF file. Out: a `ForeignCheckpoint`, or files in the other layout. May import:
`fulmen_core.model` and `fulmen_core.tokenizer`.
"""
