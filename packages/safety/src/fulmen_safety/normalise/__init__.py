"""Views of a text in which disguises are undone, each with its offsets into the text as it was written.

In: a text. Out: views, the raw one first, each one that shows something else after it. May import: the tables of
disguises.

* **raw**: as written.
* **folded**: compatibility forms, homoglyphs, accents put on Latin letters, zero-width, bidirectional and control
  characters undone, traditional characters simplified, character by character.
* **joined**: the folded view without the separators of spaced-out words: ``i g n o r e``, ``1-3-8-0``; and **joined
  signs**, where signs stand among their letters: ``s k - l i v e``. At the end of an unfinished text a view stops where
  that is still open.

These never take back what they show, so a stream can be judged by them. Nor does **unescaped**, which an answer has in
place of the decoded view: the folded one with the characters that are written as escapes, ``\\u0041``, ``&#65;``,
``%41``. The joined ones are made of it then. The others need the whole text and are shown with ``decoded=True``, at
input, in the corpus and for the reward:

* **decoded**: base64, hexadecimal, binary, percent encoding, character references and escapes in their places, up to
  three layers deep;
* **leet**, **rot13**, **reversed**: where known words come out;
* **assembled**: Chinese characters that were split into their parts; **pinyin**: what is spelled in Latin letters.

A view is made only of a text with signs of its disguise. A detector judges every view that there is,
unless it is a `fulmen_safety.detector.PlainReader`.
"""

from __future__ import annotations

from fulmen_safety.normalise.characters import escapes, unescaped
from fulmen_safety.normalise.folded import fold, folded_characters, folds, visible
from fulmen_safety.normalise.hanzi import assembled
from fulmen_safety.normalise.joined import REACH, SEPARATORS, join, joins
from fulmen_safety.normalise.letters import leet, reversed_words, rotated
from fulmen_safety.normalise.payloads import decoded_view
from fulmen_safety.normalise.pinyin import from_pinyin
from fulmen_safety.normalise.view import View, raw_view

__all__ = ["REACH", "SEPARATORS", "View", "folded_characters", "is_plain", "raw_view", "views", "visible"]


def views(raw: str, *, final: bool = True, decoded: bool = False) -> list[View]:
    """Return the raw view and each other view that shows something else.

    Args:
        raw: a text, or with ``final=False`` the beginning of one.
        decoded: also show the views that need the whole text; not for an unfinished one.
    """
    if decoded and not final:
        raise ValueError("an unfinished text cannot be decoded: what comes may change what was shown")
    as_written = raw_view(raw)
    folded = fold(raw, final=final)
    shown = [as_written] if folded is None else [as_written, folded]
    if not decoded and (characters := unescaped(shown[-1], final=final)):
        shown.append(characters)
    joined = join(shown[-1], final=final)
    return [*shown, *joined, *(_decoded([*shown, *joined[:1]]) if decoded else [])]


def is_plain(raw: str, since: int = 0) -> bool:
    """Return whether an unfinished text has no view but the raw one.

    Args:
        since: an index before which that is known: ``raw[:since]`` was plain, or the end of something plain.
    """
    return not (folds(raw, since) or escapes(raw, since) or joins(raw, since))


def _decoded(plain: list[View]) -> list[View]:
    """Return the views that need the whole text, made of the others."""
    found: list[View] = []
    base = plain[-1]
    payload = next((view for one in reversed(plain) if (view := decoded_view(one))), None)
    if payload is not None:
        base = payload
        found.append(payload)
    found += [view for make in (leet, rotated, reversed_words) if (view := make(base))]
    whole = assembled(base)
    if whole is not None:
        base = whole
        found.append(whole)
    spelled = from_pinyin(base)
    return found if spelled is None else [*found, spelled]
