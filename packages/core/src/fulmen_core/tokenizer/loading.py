"""Whose tokenizer a folder holds: one that Fulmen trained, or one that an open checkpoint brought."""

from __future__ import annotations

from pathlib import Path

from fulmen_core.files import read_json
from fulmen_core.tokenizer.bpe import ByteLevelTokenizer
from fulmen_core.tokenizer.chat import CHATML_TEMPLATE
from fulmen_core.tokenizer.foreign import ForeignTokenizer
from fulmen_core.tokenizer.tokenizer import Tokenizer


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read the tokenizer of a model or tokenizer directory, in whichever form it is.

    Raises:
        UserError: the directory holds no tokenizer, or one of a kind that is not supported.
        CorruptArtefact: a file is truncated, of another kind, or could let text produce a special token.
    """
    directory = Path(directory)
    return ByteLevelTokenizer.load(directory) if _is_our_own(directory) else ForeignTokenizer.load(directory)


def _is_our_own(directory: Path) -> bool:
    """Whether the tokenizer is one of `train`: by its template or, where there is no config, by its reserved tokens."""
    if (directory / "tokenizer_config.json").is_file():
        config = read_json(directory / "tokenizer_config.json", "tokenizer config")
        return isinstance(config, dict) and config.get("chat_template") == CHATML_TEMPLATE
    document = read_json(directory / "tokenizer.json", "tokenizer")
    if not isinstance(document, dict):
        return False
    added = document.get("added_tokens")
    return isinstance(added, list) and any(
        isinstance(token, dict) and token.get("content") == "<|reserved_0|>" for token in added
    )
