"""Answers with something planted in them, and ways to cut them into pieces."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from leaking.planted import Planted, planted

_SENTENCES = (
    "Thank you for your question. ",
    "You can reach them at ",
    "The number on file is ",
    "Please note: ",
    "It was sent on 12 March 2024, in 3 parcels of 4 kg each. ",
    "See section 7.2, pages 101-108. ",
    "您好，感谢您的咨询。",
    "联系方式是",
    "请记录以下信息：",
    "共计12箱，每箱24件。",
    "\n- ",
    "```\nkey = ",
    "and also ",
    "，或者",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A text, and what is planted in it."""

    text: str
    planted: tuple[Planted, ...]


def draw_answer(draw: random.Random, *, secrets: bool) -> Answer:
    """Draw an answer of a few sentences with one to three planted values, some glued to what stands beside them."""
    pieces: list[str] = []
    values = [planted(draw, secrets=secrets) for _ in range(draw.choice([1, 1, 2, 3]))]
    for value in values:
        pieces += draw.choices(_SENTENCES, k=draw.randint(0, 3))
        glue = draw.choice(["", " "])
        before = draw.choice(["是", "，", "：", " ", " (", "\n"])
        pieces += [before, glue, value.shown, draw.choice(["。", ". ", "，", ") ", "\n", " "])]
    pieces += draw.choices(_SENTENCES, k=draw.randint(0, 2))
    return Answer("".join(pieces), tuple(values))


def draw_pieces(draw: random.Random, text: str) -> list[str]:
    """Cut a text: in single characters, in pieces like tokens, at a few places, or close together somewhere."""
    style = draw.random()
    if style < 0.1:
        return list(text)
    if style < 0.5:
        cuts = []
        place = 0
        while place < len(text):
            place += draw.randint(1, 9)
            cuts.append(place)
    elif style < 0.8:
        cuts = draw.choices(range(len(text) + 1), k=draw.randint(0, 6))  # with repetition: empty pieces too
    else:
        middle = draw.randrange(len(text))
        cuts = [place for place in range(middle - 8, middle + 8) if 0 < place < len(text) and draw.random() < 0.7]
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]
