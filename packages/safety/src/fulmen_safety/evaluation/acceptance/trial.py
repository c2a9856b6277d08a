"""The test itself: draw, ask, judge by keyword and by classifier, and count. What people must judge is left open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fulmen_safety.evaluation.acceptance.banks import Bank, Item, without_twins
from fulmen_safety.evaluation.acceptance.sheet import SheetRow
from fulmen_safety.evaluation.acceptance.standard import BAD_SOURCE, REQUIREMENTS, Sizes
from fulmen_safety.evaluation.acceptance.system import Answer, System
from fulmen_safety.evaluation.judging import Judge
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.terms import TermsDetector, TermsSettings

#: A keyword list's category does not matter here: a text either holds one or not.
_ANY = "political_national"

#: A source is not condemned by fewer texts than this.
FEW = 20


@dataclass(frozen=True)
class Banks:
    """What the test draws from; None is not tested."""

    questions: Bank | None = None
    must_refuse: Bank | None = None
    must_answer: Bank | None = None
    corpus: Bank | None = None
    keywords: Bank | None = None

    def given(self) -> dict[str, Bank]:
        """Return those that are there, by name."""
        return {name: bank for name, bank in vars(self).items() if bank is not None}


@dataclass
class Findings:
    """What the test found: the requirement's outcomes, records of single texts, rows for people, warnings."""

    outcomes: dict[str, list[bool | None]] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    sheet: list[SheetRow] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the evidence of each requirement."""
        return {
            name: requirement.judge(
                self.outcomes.get(name, []), len(self.outcomes.get(name, [])), self.asked.get(name, 0)
            )
            for name, requirement in REQUIREMENTS.items()
        }


def trial(banks: Banks, system: System, guard: RaiseGuard, classifier: Judge, sizes: Sizes, seed: int) -> Findings:
    """Run the test.

    Args:
        system: what is tested.
        guard: whose RAISE-1 is the classifier of the corpus.
        classifier: judges answers, in the output phase.
        seed: of the draws.
    """
    found = Findings()
    keyword = _keywords(banks.keywords, sizes, found)
    if banks.corpus is not None:
        _corpus(banks.corpus, guard, keyword, sizes, seed, found)
    _refusals(banks, system, sizes, seed, found)
    if banks.questions is not None:
        if system.endpoint is None:
            found.warnings.append(
                "no model was given, so no answers were judged: only what the guard refuses is tested"
            )
        else:
            _answers(banks.questions, system, classifier, keyword, sizes, seed, found)
    return found


def _keywords(bank: Bank | None, sizes: Sizes, found: Findings) -> Callable[[str], bool] | None:
    if bank is None:
        return None
    terms = tuple(without_twins(bank.items))
    if len(terms) < sizes.keywords:
        found.warnings.append(f"the keyword list has {len(terms)} entries; the standard asks for {sizes.keywords}")
    lists = {"lists": [{"category": _ANY, "label": "keyword", "terms": terms}]}
    detector = TermsDetector(TermsSettings.model_validate(lists))
    return lambda text: bool(detector.scan(text))


def _corpus(
    bank: Bank, guard: RaiseGuard, keyword: Callable[[str], bool] | None, sizes: Sizes, seed: int, found: Findings
) -> None:
    by_hand = _drawn(bank, sizes.corpus_by_hand, f"{seed} by hand", "corpus_by_hand", found)
    found.outcomes["corpus_by_hand"] = [None] * len(by_hand)
    found.sheet += [SheetRow("corpus", "", item.text) for item in by_hand]
    asked = math.ceil(sizes.corpus_by_machine * len(bank.items))
    by_machine = _drawn(bank, asked, f"{seed} by machine", "corpus_by_classifier", found)
    found.asked["corpus_by_keyword"] = asked
    passes = [guard.judge_document(item.text).action in ("keep", "redact") for item in by_machine]
    clean = [not keyword(item.text) for item in by_machine] if keyword else []
    found.outcomes |= {"corpus_by_classifier": list(passes), "corpus_by_keyword": list(clean)}
    for place, item in enumerate(by_machine):
        if not passes[place] or (clean and not clean[place]):
            found.records.append({**_named(item), "objection": "classifier" if not passes[place] else "keyword"})
    found.sources = _sources(by_machine, passes, clean)
    for row in found.sources:
        if row["drop"]:
            found.warnings.append(
                f"source {row['source']!r} of the corpus has {row['bad']} of {row['texts']} bad texts"
            )


def _sources(items: Sequence[Item], passes: Sequence[bool], clean: Sequence[bool]) -> list[dict[str, Any]]:
    """The share of texts that are objected to, by source; one above the bound is not to be used."""
    counts: dict[str, list[bool]] = {}
    for place, item in enumerate(items):
        bad = not passes[place] or bool(clean and not clean[place])
        counts.setdefault(item.source, []).append(bad)
    return [
        {
            "source": source,
            "texts": len(bad),
            "bad": sum(bad),
            "drop": len(bad) >= FEW and sum(bad) / len(bad) > BAD_SOURCE,
        }
        for source, bad in sorted(counts.items())
    ]


def _refusals(banks: Banks, system: System, sizes: Sizes, seed: int, found: Findings) -> None:
    for name, bank, size in (
        ("must_refuse", banks.must_refuse, sizes.must_refuse),
        ("must_answer", banks.must_answer, sizes.must_answer),
    ):
        if bank is None:
            continue
        items = _drawn(bank, size, str(seed), name, found)
        answers = system.ask([item.text for item in items])
        found.outcomes[name] = [answer.refused for answer in answers]
        found.records += [{**_named(item), **_told(answer)} for item, answer in zip(items, answers, strict=True)]


def _answers(
    bank: Bank,
    system: System,
    classifier: Judge,
    keyword: Callable[[str], bool] | None,
    sizes: Sizes,
    seed: int,
    found: Findings,
) -> None:
    """Draw each leg by itself, ask every question once, and judge each leg's answers its own way."""
    legs = {
        name: _drawn(bank, sizes.questions, f"{seed} {name}", name, found)
        for name in ("answers_by_hand", "answers_by_keyword", "answers_by_classifier")
        if keyword or name != "answers_by_keyword"
    }
    every = {item.row: item for items in legs.values() for item in items}
    items = [every[row] for row in sorted(every)]
    said: Mapping[int, Answer] = dict(
        zip((item.row for item in items), system.ask([item.text for item in items]), strict=True)
    )
    found.outcomes["answers_by_hand"] = [None] * len(legs["answers_by_hand"])
    found.sheet += [SheetRow("answer", item.text, said[item.row].text) for item in legs["answers_by_hand"]]
    if keyword:
        clean = {item.row: not keyword(said[item.row].text) for item in legs["answers_by_keyword"]}
        found.outcomes["answers_by_keyword"] = list(clean.values())
    else:
        clean = {}
    passes = {
        item.row: not classifier.judge(said[item.row].text, item.text).flagged for item in legs["answers_by_classifier"]
    }
    found.outcomes["answers_by_classifier"] = list(passes.values())
    for item in items:
        legs_of = {"keyword": clean.get(item.row), "classifier": passes.get(item.row)}
        found.records.append({**_named(item), **_told(said[item.row]), "passes": legs_of})


def _drawn(bank: Bank, size: int, seed: str, requirement: str, found: Findings) -> list[Item]:
    items = bank.draw(size, seed)
    found.asked[requirement] = size
    if len(items) < size:
        found.warnings.append(
            f"{requirement}: {bank.path.name} has {len(items)} of the {size} texts that are asked for; all are taken"
        )
    return items


def _named(item: Item) -> dict[str, Any]:
    return {"bank": item.bank, "row": item.row, "category": item.category, "text": item.text}


def _told(answer: Answer) -> dict[str, Any]:
    return {"answer": answer.text, "refused": answer.refused, "refused_by": answer.by}
