"""The folder that every server reads: the benchmark's random weights, with a tokenizer that names every token.

The weights' own tokenizer has 512 of the model's tokens and no chat template. Random weights choose any token, so
without names most answers would be empty text, and no client could see the first token arrive.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
_NAMES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def served_folder(model: Path, out: Path) -> Path:
    """Make `out` of `model`: its weights linked, its tokenizer filled up to the vocabulary. Kept if it is there."""
    if out.exists():
        return out
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in _NAMES:
        if (model / name).exists():
            shutil.copy(model / name, unfinished / name)
    for weights in model.glob("*.safetensors*"):
        os.link(weights, unfinished / weights.name)
    vocab_size = json.loads((model / "config.json").read_text())["vocab_size"]

    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    known = set(vocabulary.values()) | {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary |= {f"x{number}x": number for number in range(vocab_size) if number not in known}  # no merge makes these
    (unfinished / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))

    config = json.loads((model / "tokenizer_config.json").read_text())
    (unfinished / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}, indent=1))
    unfinished.rename(out)
    return out


def worded_folder(served: Path, out: Path) -> Path:
    """Make `out` of `served`: tokens that are no text of their own are English words. Kept if it is there."""
    from fulmen_safety.disguise_tables import english_words

    if out.exists():
        return out
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(served, unfinished, copy_function=os.link)
    tokenizer = json.loads((served / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    numbers = {number: name for name, number in vocabulary.items()}
    words = sorted(english_words(), key=lambda word: (len(word) > 6, word[::-1]))  # short ones, of all beginnings
    names = [
        form
        for forms in (("Ġ{}", str.lower), ("Ġ{}", str.title), ("{}", str.lower), ("{}", str.title))
        for form in _forms(words, *forms)
    ]
    free = iter(name for name in names if name not in vocabulary)
    for number, name in numbers.items():
        if re.fullmatch("x[0-9]+x", name) or not re.fullmatch("[!-~ĠĊ]+", name):  # nor half a character or a control
            numbers[number] = next(free)
    tokenizer["model"]["vocab"] = {name: number for number, name in numbers.items()}
    (unfinished / "tokenizer.json").unlink()
    (unfinished / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    unfinished.rename(out)
    return out


def _forms(words: Iterable[str], shape: str, case: Callable[[str], str]) -> list[str]:
    return [shape.format(case(word)) for word in words]


def fulmen_folder(served: Path, out: Path) -> Path:
    """Import `served` into `out`, as Fulmen serves it. Kept if it is there."""
    from fulmen_core.formats.huggingface import read
    from fulmen_core.formats.writing import write_model

    if not out.exists():
        write_model(read(served), out)
    return out


def repeatable_word(served: Path) -> int:
    """A token that is a word with its space: repeated as often as you like, its text encodes to the same tokens."""
    vocabulary: dict[str, int] = json.loads((served / "tokenizer.json").read_text())["model"]["vocab"]
    return min(number for text, number in vocabulary.items() if re.fullmatch("\u0120[a-z]{2,}", text))
