"""The detector ``terms``: words and phrases that the policy itself lists. For deny lists and topics; needs no plugin.

A term of Latin letters or digits is found where it stands alone, in any case; a term that begins or ends in another
script (Han) is found wherever it occurs, since such scripts have no word boundary to ask for. A blank in a term
stands for one to three. A term of several words is also found with all its letters spelled out, ``r e d r o s e``,
where nothing tells its words apart: the joined views show one long word of it. A term in another script is also looked
for as the folded view shows it, for there it stands when it is disguised.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from pydantic import Field

from fulmen_core.errors import UserError
from fulmen_core.guard import Finding
from fulmen_safety.normalise import SEPARATORS, folded_characters
from fulmen_safety.pattern import NOTHING, Node, Pattern, chars, either, literal, repeat, seq
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.pattern_follower import JointFollower
from fulmen_safety.settings import Table, read_settings
from fulmen_safety.taxonomy import taxonomy

_WORD = "0-9A-Za-z"
_SPELLED = "\x00"  # in a term: a separator of letters that are spelled out
_IN_WORD = re.compile(f"[{_WORD}]")


class TermList(Table):
    """Terms of one category."""

    category: str
    terms: tuple[str, ...] = Field(min_length=1)
    label: str = "term"
    score: float = Field(1.0, gt=0.0, le=1.0)


class TermsSettings(Table):
    """Settings of the detector ``terms``."""

    lists: tuple[TermList, ...] = Field(min_length=1)


def make(settings: Mapping[str, object]) -> TermsDetector:
    """Make the detector. Raises `UserError` for wrong settings, an unknown category or an empty term."""
    table = read_settings(TermsSettings, settings, "the settings of the detector 'terms'")
    return TermsDetector(table)


class TermsDetector:
    """Finds listed terms, each list under its own category. Streams exactly, as its patterns do."""

    name = "terms"

    def __init__(self, settings: TermsSettings) -> None:
        self._lists = [_detector(terms) for terms in settings.lists]
        self._scores = [(terms.category, terms.score) for terms in settings.lists]
        self.look_behind = max(one.look_behind for one in self._lists)
        self.kinds = tuple(dict.fromkeys(terms.label for terms in settings.lists))

    def highest_scores(self) -> dict[str, float]:
        """Return the highest score that the lists give each category; see `fulmen_safety.detector.Bounded`."""
        return {
            category: max(score for code, score in self._scores if code == category) for category, _ in self._scores
        }

    def scan(self, text: str) -> list[Finding]:
        """Return the listed terms in `text`."""
        return [finding for one in self._lists for finding in one.scan(text)]

    def hold_from(self, text: str) -> int:
        """Return the index from which `text` might still become a listed term."""
        return min(one.hold_from(text) for one in self._lists)

    def follow(self, least: float = 0.0) -> JointFollower:
        """Return what reads a stream."""
        return JointFollower([one.follow(least) for one in self._lists])


def _detector(terms: TermList) -> PatternDetector:
    taxonomy().check(terms.category, "the settings of the detector 'terms'")
    for term in terms.terms:
        if not term.strip():
            raise UserError(
                "there is an empty term", where=f"the settings of the detector 'terms', list {terms.label!r}"
            )

    def listed(_: str) -> float:
        return terms.score

    groups: dict[tuple[bool, bool], set[str]] = {}
    for term in {term.strip() for term in terms.terms}:
        bounds = (bool(_IN_WORD.match(term[0])), bool(_IN_WORD.match(term[-1])))
        groups.setdefault(bounds, set()).update(_forms(term))
    patterns = []
    for (bounded_before, bounded_after), group in sorted(groups.items()):
        patterns.append(
            Pattern(
                label=terms.label,
                body=_trie(group),
                anchor=f"[{''.join(sorted({re.escape(form) for term in group for form in _cases(term[0])}))}]",
                not_before=(chars(_WORD),) if bounded_before else (),
                not_after=chars(_WORD) if bounded_after else NOTHING,
                accept=listed,
            )
        )
    return PatternDetector("terms", terms.category, patterns)


def _forms(term: str) -> set[str]:
    """Return the ways to write a term that no view brings together: a sign and its accent apart, and what the folded
    view makes of other scripts. Not where that is plain Latin, which may be another word: résumé, resume.
    """
    forms = {term, unicodedata.normalize("NFC", term), unicodedata.normalize("NFD", term)}
    folded = folded_characters(term)
    if folded and not folded.isascii():
        forms.add(folded)
    return forms | {spelled for form in forms if (spelled := _spelled(form))}


def _spelled(term: str) -> str:
    """Return a term of several words letter by letter, or nothing: two letters are a way to write, 3-4."""
    letters = "".join(term.split())
    return _SPELLED.join(letters) if letters != term and len(letters) > 2 else ""


def _trie(terms: Iterable[str]) -> Node:
    """One node for all terms, with shared beginnings shared, so that ten thousand terms cost little more than one.

    Longer terms are tried first, so that "ab cd" is found where "ab" would do too.
    """
    branches: dict[str, list[str]] = {}
    ends_here = False
    for term in terms:
        if term:
            head = term[0].casefold()
            head = head if len(head) == 1 else term[0]
            branches.setdefault(head, []).append(term[1:].lstrip() if term[0].isspace() else term[1:])
        else:
            ends_here = True
    nodes = [seq(_step(head), _trie(rest)) for head, rest in sorted(branches.items())]
    if ends_here:
        nodes.append(NOTHING)
    return nodes[0] if len(nodes) == 1 else either(*nodes)


def _step(head: str) -> Node:
    if head == _SPELLED:
        return chars(SEPARATORS)
    return repeat(chars(" "), 1, 3) if head.isspace() else literal(head, ignore_case=True)


def _cases(char: str) -> set[str]:
    return {form for form in (char, char.lower(), char.upper(), char.casefold()) if len(form) == 1}
