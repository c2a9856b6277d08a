"""Sentences with labelled spans: read from JSONL, or made of templates whose slots are filled."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fulmen_raise_pii.tagger.tokens import blocks
from fulmen_safety import UserError

#: What the tagger tells apart. A kind's place is part of the weights' layout.
KINDS = (
    "person", "address", "location", "organization", "date", "age", "title", "nationality", "driver_license", "phone",
    "address_part",
)  # fmt: skip

#: Types of presidio-research's data -> kinds. Other types have a form of their own; the patterns find them.
TYPES = {
    "PERSON": "person",
    "ADDRESS": "address",
    "STREET_ADDRESS": "address",
    "ZIP_CODE": "address",
    "LOCATION": "location",
    "GPE": "location",
    "ORGANIZATION": "organization",
    "DATE_TIME": "date",
    "AGE": "age",
    "TITLE": "title",
    "PREFIX": "title",
    "NRP": "nationality",
    "US_DRIVER_LICENSE": "driver_license",
    "PHONE_NUMBER": "phone",
}

_CREDITS = re.compile(r"\b[Bb]y [A-Z]|[Cc]ontributed|[Tt]hanks")
_GAP = re.compile(r"[\s,>?]*")  # between the pieces of an address
_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text and its spans (start, end, kind). `group` is the same for sentences of one template."""

    text: str
    spans: tuple[tuple[int, int, str], ...]
    group: str


def rows(path: Path) -> Iterator[dict[str, object]]:
    """Yield the objects of a JSONL file, gzipped or not. Raises `UserError` if there is no such file."""
    if not path.is_file():
        raise UserError("there is no such file", where=str(path), remedy="name a JSONL file, gzipped or not")
    stored = path.read_bytes()
    for line in (gzip.decompress(stored) if path.suffix == ".gz" else stored).splitlines():
        if line.strip():
            yield json.loads(line)


def read_templates(path: Path) -> list[str]:
    """Return the templates of a file of ``{"template"}``, with their written ``\\n`` made line ends."""
    return [str(row["template"]).replace("\\n", "\n").replace("\\,", ",") for row in rows(path)]


def written_files(folder: Path) -> list[Path]:
    """Return the ``.txt`` files of a folder of templates, in order. Raises `UserError` if there are none."""
    found = sorted(folder.glob("*.txt"))
    if not found:
        raise UserError("there are no templates", where=str(folder), remedy="name a folder of .txt files, one a line")
    return found


def read_written(files: Iterable[Path]) -> list[str]:
    """Return the templates of files, one a line, with their written ``\\n`` made line ends."""
    lines = (line for path in files for line in path.read_text("utf-8").split("\n") if line)
    return [line.replace("\\n", "\n") for line in lines]


def read_sentences(path: Path, templates: Sequence[str]) -> list[Sentence]:
    """Return the sentences of a file of ``{"text", "spans": [{"type", "start", "end"}], "template_id", "source"}``.

    The group is the template with the most fixed words whose words the text has, each piece in its place. Templates of
    slots alone, such as that of a letter's head, fit anything; what only they fit goes by the file's own number for it.
    """
    fixed = [_fixed_words(template) for template in templates]
    worded = sorted(
        (place for place, words in enumerate(fixed) if words), key=lambda place: -len("".join(fixed[place]))
    )
    read = []
    for row in rows(path):
        text = str(row["text"])
        told = _worded(text)
        group = next((f"template {place}" for place in worded if _in_order(fixed[place], told)), "")
        spans: list[dict[str, object]] = row["spans"]  # type: ignore[assignment]
        kept = [(int(str(s["start"])), int(str(s["end"])), TYPES.get(str(s["type"]), str(s["type"]))) for s in spans]
        group = group or f"{BARE} {row.get('template_id')}"
        read.append(Sentence(text, tuple(parted(text, sorted(kept))), group))
    return read


#: How the group of a sentence is called whose template has no words of its own.
BARE = "bare"


def is_bare(template: str) -> bool:
    """Return whether a template consists of slots alone."""
    return not _fixed_words(template)


def _worded(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def _fixed_words(template: str) -> list[str]:
    parts = (_worded(part) for part in re.split(r"\{\{\s*\w+\s*\}\}", template))
    return [part for part in parts if part.strip()]


def _in_order(parts: Sequence[str], told: str) -> bool:
    at = 0
    for part in parts:
        found = told.find(part, at)
        if found < 0:
            return False
        at = found + len(part) - 1
    return True


def read_plain(path: Path, count: int, rng: random.Random) -> list[Sentence]:
    """Return paragraphs of a file of ``{"text"}`` that is taken to have no personal data, drawn at random; those that
    thank somebody are left out."""
    paragraphs = [
        paragraph.strip()
        for row in rows(path)
        for paragraph in str(row["text"]).split("\n")
        if 30 <= len(paragraph.strip()) <= 600 and not _CREDITS.search(paragraph)
    ]
    return [Sentence(text, (), "plain") for text in rng.sample(paragraphs, min(count, len(paragraphs)))]


def filled(
    template: str, group: str, slots: Mapping[str, Callable[[], tuple[str, str]]], rng: random.Random
) -> Sentence:
    """Return `template` with each slot filled by ``slots[name]()``, a kind (or "") and a value; sometimes in one
    case."""
    pieces: list[tuple[str, str]] = []
    last = 0
    for slot in _SLOT.finditer(template):
        pieces.append(("", template[last : slot.start()]))
        pieces.append(slots[slot[1]]())
        last = slot.end()
    pieces.append(("", template[last:]))
    change = rng.random()
    if change < 0.1:
        pieces = [(kind, value.lower()) for kind, value in pieces]
    elif change < 0.12:
        pieces = [(kind, value.upper()) for kind, value in pieces]
    text, spans = "", []
    for kind, value in pieces:
        if kind:
            spans.append((len(text), len(text) + len(value), kind))
        text += value
    return Sentence(text, tuple(parted(text, spans)), group)


def parted(text: str, spans: Sequence[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """Yield `spans`, with ``"address"`` made ``"address_part"`` where an address is labelled piece by piece.

    The data do both, by template. A label of its own lets the tagger remember which it is at.
    """
    for place, (start, end, kind) in enumerate(spans):
        near = [
            (spans[other], text[min(end, spans[other][1]) : max(start, spans[other][0])])
            for other in (place - 1, place + 1)
            if 0 <= other < len(spans)
        ]
        beside = any(one[2] in ("address", "location") and _GAP.fullmatch(gap) for one, gap in near)
        yield start, end, "address_part" if kind == "address" and beside else kind


def labelled(sentence: Sentence) -> Iterator[tuple[list[str], list[int]]]:
    """Yield the words and labels of each block of a sentence; see `fulmen_raise_pii.tagger.decode` for labels."""
    for block in blocks(sentence.text):
        labels = [0] * len(block.words)
        for start, end, kind in sentence.spans:
            if kind not in KINDS:
                continue
            inside = [t for t, (s, e) in enumerate(zip(block.starts, block.ends, strict=True)) if s < end and e > start]
            for place, token in enumerate(inside):
                labels[token] = 2 * KINDS.index(kind) + (1 if place == 0 else 2)
        yield block.words, labels


def grouped_folds(sentences: Iterable[Sentence], folds: int, seed: int) -> dict[str, int]:
    """Return group -> fold, drawn at random."""
    groups = sorted({sentence.group for sentence in sentences})
    random.Random(seed).shuffle(groups)
    return {group: place % folds for place, group in enumerate(groups)}
