"""A byte-level BPE of Hugging Face's files as keys of a GGUF file, with the chat template, as a server needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_vocabulary(writer: Any, folder: Path, vocab_size: int) -> None:
    """Add the tokenizer of `folder`, which must name all `vocab_size` tokens, and split text as GPT-2's does.

    Raises:
        KeyError: a token has no name.
    """
    import gguf

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    text_of = {number: text for text, number in tokenizer["model"]["vocab"].items()} | special
    kinds = [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([text_of[number] for number in range(vocab_size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    number_of = {text: number for number, text in special.items()}
    writer.add_bos_token_id(number_of[config["bos_token"]])
    writer.add_eos_token_id(number_of[config["eos_token"]])
    writer.add_pad_token_id(number_of[config["pad_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template(config["chat_template"])
