"""What `tokenizer.ggml.pre` stands for: how byte-level BPE vocabularies cut text before they merge.

The patterns are those of the models' own `tokenizer.json`; llama.cpp keeps the same ones in src/llama-vocab.cpp.
"""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = _CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
_LLAMA3 = rf"{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_WORD}|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ODD = r"[^\r\n\p{L}\p{N}]?"
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_ODD}{_UPPER}*{_LOWER}+|{_ODD}{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASHED}"
_GPT4O = (
    rf"{_ODD}{_UPPER}*{_LOWER}+(?i:{_CONTRACTIONS})?|{_ODD}{_UPPER}+{_LOWER}*(?i:{_CONTRACTIONS})?"
    rf"|\p{{N}}{{1,3}}|{_SLASHED}"
)


def _byte_level(*, use_regex: bool) -> Document:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> Document:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*steps: Document) -> Document:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_BY_GPT2 = _byte_level(use_regex=True)
_BY_DIGITS = _sequence({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True))
_BY_DEFAULT = _sequence(
    _split(r"[\p{P}\$\+<=>\^~\|]+"),
    _split(_GPT2),
    _split(r"\p{N}+"),
    _split(r"[0-9][0-9][0-9]"),
    _byte_level(use_regex=False),
)


def _by(pattern: str) -> Document:
    return _sequence(_split(pattern), _byte_level(use_regex=False))


_GROUPS: tuple[tuple[Document, str], ...] = (
    (_BY_GPT2, "gpt-2 mpt olmo jais phi-2 trillion granite-docling"),
    (_BY_DIGITS, "smollm starcoder refact command-r codeshell exaone minerva-7b"),
    (_BY_DEFAULT, "default"),
    (_by(_LLAMA3), "llama3 llama-v3 llama-bpe falcon3 pixtral midm-2.0 lfm2 dbrx smaug-bpe chatglm-bpe"),
    (_by(_QWEN2), "qwen2 stablelm2 deepseek-r1-qwen hunyuan megrez grok-2"),
    (_by(_TEKKEN), "tekken"),
    (_by(_GPT4O), "gpt-4o llama4"),
)

#: The name of a pre-tokeniser -> the `pre_tokenizer` of tokenizer.json.
PRE_TOKENIZERS: dict[str, Document] = {name: document for document, names in _GROUPS for name in names.split()}

#: Those whose models normalise text first.
NORMALIZERS: dict[str, Document] = {name: {"type": "NFC"} for name in ("qwen2", "deepseek-r1-qwen", "megrez")}

#: Those whose models begin a text with the bos token where the file does not say.
WITH_BOS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "tekken", "pixtral"})


def ignores_merges(pre: str) -> bool:
    """Whether a stretch of text that is a token is taken as it is, whatever the merges would make of it."""
    return pre in {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"}
