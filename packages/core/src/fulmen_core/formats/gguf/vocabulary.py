"""The tokenizer in the metadata of a GGUF file, written as Hugging Face's `tokenizer.json` and its companions.

Two kinds are known: "gpt2", byte-level BPE with a named pre-tokeniser, and "llama", SentencePiece BPE with byte
fallback, whose merges are recovered from the scores as SentencePiece's converters do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fulmen_core.formats.gguf.fields import Fields
from fulmen_core.formats.gguf.pre_tokenizers import NORMALIZERS, PRE_TOKENIZERS, WITH_BOS, ignores_merges

Document = dict[str, Any]

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPACE = "▁"


def tokenizer_files(fields: Fields, vocab_size: int) -> dict[str, str]:
    """`tokenizer.json` and `tokenizer_config.json`; nothing if the file has no tokenizer.

    Raises:
        UserError: the tokenizer is of a kind, or has a pre-tokeniser, that is not known; or a field is wrong.
    """
    if "tokenizer.ggml.model" not in fields or fields.text("tokenizer.ggml.model") == "none":
        return {}
    kind = fields.text("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise fields.refuse(f"the tokenizer model {kind!r} is not supported", remedy="only gpt2 and llama are")
    tokens = fields.texts("tokenizer.ggml.tokens")
    if len(set(tokens)) != len(tokens) or len(tokens) > vocab_size:
        fault = (
            "has a token twice" if len(tokens) <= vocab_size else f"has more tokens than the {vocab_size} embeddings"
        )
        raise fields.refuse(f"tokenizer.ggml.tokens {fault}")
    types = [1] * len(tokens)
    if "tokenizer.ggml.token_type" in fields:
        types = fields.numbers("tokenizer.ggml.token_type", len(tokens))
    special = _special_tokens(fields, tokens)
    adds_bos = fields.flag("tokenizer.ggml.add_bos_token", kind == "llama" or _pre(fields) in WITH_BOS)
    adds_bos = adds_bos and "bos_token" in special
    document = _byte_level(fields, tokens) if kind == "gpt2" else _sentence_piece(fields, tokens, types, special)
    document["added_tokens"] = _added_tokens(tokens, types)
    document["post_processor"] = _begin_with(special["bos_token"], tokens) if adds_bos else document["post_processor"]
    return {
        "tokenizer.json": _json(document),
        "tokenizer_config.json": _json(_config(fields, special, adds_bos)),
    }


def _byte_level(fields: Fields, tokens: Sequence[str]) -> Document:
    pre = _pre(fields)
    if pre not in PRE_TOKENIZERS:
        raise fields.refuse(
            f"the pre-tokeniser {pre!r} is not supported", remedy=f"known are {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignores_merges(pre),
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": _stored_merges(fields),
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _document(model, NORMALIZERS.get(pre), PRE_TOKENIZERS[pre], byte_level, post_processor=byte_level)


def _sentence_piece(
    fields: Fields, tokens: Sequence[str], types: Sequence[int], special: Mapping[str, str]
) -> Document:
    if "tokenizer.ggml.merges" in fields:
        merges = _stored_merges(fields)
    else:
        scores = fields.numbers("tokenizer.ggml.scores", len(tokens))
        merges = merges_of_scores(
            tokens, scores, frozenset(t for t, kind in zip(tokens, types, strict=True) if kind in (_UNKNOWN, _CONTROL))
        )
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": special.get("unk_token"),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }
    prefixed = fields.flag("tokenizer.ggml.add_space_prefix", True)
    normalizers: list[Document] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    decoders: list[Document] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefixed:
        normalizers.insert(0, {"type": "Prepend", "prepend": _SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _document(
        model,
        {"type": "Sequence", "normalizers": normalizers},
        None,
        {"type": "Sequence", "decoders": decoders},
        post_processor=None,
    )


def merges_of_scores(tokens: Sequence[str], scores: Sequence[float], excluded: frozenset[str]) -> list[tuple[str, str]]:
    """Recover BPE merges, best first, from the scores of a SentencePiece vocabulary.

    SentencePiece merges whichever pair makes the token of the highest score; so every way to make a token of two others
    is a merge, ranked by the score of what it makes. Tokens in `excluded` are neither made nor used: text must not
    produce them.
    """
    ids = {token: index for index, token in enumerate(tokens) if token not in excluded}
    merges: list[tuple[float, str, str]] = []
    for token, index in ids.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [(left, right) for left, right in pairs if left in ids and right in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += [(scores[index], left, right) for left, right in pairs]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in merges]


def _stored_merges(fields: Fields) -> list[tuple[str, str]]:
    merges = []
    for merge in fields.texts("tokenizer.ggml.merges"):
        # The first token may itself begin with a space: the separator is the first space after its first character.
        left, space, right = merge[:1] + merge[1:].partition(" ")[0], " " in merge[1:], merge[1:].partition(" ")[2]
        if not space or not right:
            raise fields.wrong("tokenizer.ggml.merges", merge, "pairs separated by a space")
        merges.append((left, right))
    return merges


def _special_tokens(fields: Fields, tokens: Sequence[str]) -> dict[str, str]:
    special = {}
    for key, name in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        token_id = fields.integer(f"tokenizer.ggml.{key}_token_id", -1)
        if token_id >= len(tokens):
            raise fields.wrong(f"tokenizer.ggml.{key}_token_id", token_id, f"an id below {len(tokens)}")
        if token_id >= 0:
            special[f"{name}_token"] = tokens[token_id]
    return special


def _added_tokens(tokens: Sequence[str], types: Sequence[int]) -> list[Document]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": token, **flags, "special": kind != _USER_DEFINED}
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and token
    ]


def _begin_with(token: str, tokens: Sequence[str]) -> Document:
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]}},
    }


def _config(fields: Fields, special: Mapping[str, str], adds_bos: bool) -> Document:
    document: Document = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": adds_bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields.integer(".context_length"),
        **special,
    }
    if "tokenizer.chat_template" in fields:
        document["chat_template"] = fields.text("tokenizer.chat_template")
    return document


def _pre(fields: Fields) -> str:
    return fields.text("tokenizer.ggml.pre", "default")


def _document(
    model: Document,
    normalizer: Document | None,
    pre_tokenizer: Document | None,
    decoder: Document,
    post_processor: Document | None,
) -> Document:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


def _json(document: Document) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
