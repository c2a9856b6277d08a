"""GGUF, the file format of llama.cpp: one file with metadata, tokenizer and (mostly quantised) weights.

In: a .gguf file, mapped into memory. Out: a `ForeignCheckpoint`, from `checkpoint.read`. May import:
`fulmen_core.model` and `fulmen_core.tokenizer`; torch only where a tensor is handed out.
"""
