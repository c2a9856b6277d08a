"""RAISE-1's report says what was found, how much of the corpus it touches, and no word of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fulmen_core.guard import DocumentVerdict, Finding
from fulmen_trainer.data.corpus_report import JSON_FILE, TEXT_FILE
from fulmen_trainer.data.documents import read_documents, write_documents
from fulmen_trainer.data.filtering import filter_documents


class WordGuard:
    """Redacts "Ada", drops "bomb", marks "odd", fails to ask a detector about "late"."""

    name, policy_version = "words", "words-1"

    def judge_document(self, text: str) -> DocumentVerdict:
        found = tuple(
            Finding("words", category, 0.75, text.find(word), text.find(word) + len(word), word)
            for word, category in (("Ada", "privacy_pii"), ("bomb", "weapons_cbrne"), ("odd", "self_harm"))
            if word in text
        )
        if "bomb" in text:
            return DocumentVerdict("drop", "", found, "weapons_cbrne")
        action: Any = "redact" if "Ada" in text else "keep"
        degraded = ("slow",) if "late" in text else ()
        return DocumentVerdict(action, text.replace("Ada", "[NAME]"), found, degraded=degraded)


TEXTS = ["Ada wrote this", "Ada and the bomb", "nothing here", "an odd one", "late 中文 words"]


def report(tmp_path: Path, **options: Any) -> dict[str, Any]:
    write_documents(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    guard: Any = WordGuard()
    filter_documents(tmp_path / "in.jsonl", tmp_path, guard, max_quarantine_rate=0.1, **options)
    told: dict[str, Any] = json.loads((tmp_path / JSON_FILE).read_text())
    return told


def test_documents_words_and_shares_are_counted_by_category_and_action(tmp_path: Path) -> None:
    told = report(tmp_path)
    assert told["policy_version"] == "words-1"
    assert told["documents"] == {"seen": 5, "keep": 3, "drop": 1, "redact": 1}
    assert told["words"] == {"seen": 16, "keep": 9, "drop": 4, "redact": 3}
    name = told["categories"]["privacy_pii"]
    assert (name["documents"], name["findings"], name["share_of_documents"]) == (2, 2, 0.4)
    assert name["share_of_words"] == round(7 / 16, 6)
    assert (name["actions"], name["labels"], name["detectors"]) == ({"drop": 1, "redact": 1}, {"Ada": 2}, {"words": 2})
    assert told["categories"]["self_harm"]["actions"] == {"keep": 1}
    assert told["degraded"] == {"slow": 1}


def test_examples_are_hashes_and_no_text_is_told(tmp_path: Path) -> None:
    told = report(tmp_path)
    expected = [hashlib.sha256(text.encode()).hexdigest() for text in TEXTS[:2]]
    assert told["categories"]["privacy_pii"]["examples_sha256"] == expected
    page = (tmp_path / TEXT_FILE).read_text()
    assert "| privacy_pii | 2 | 40.00% |" in page
    assert "slow 1" in page
    assert not any("wrote" in text or "nothing" in text for text in (page, json.dumps(told)))


def test_kept_records_carry_labels_where_they_are_asked_for(tmp_path: Path) -> None:
    report(tmp_path, label=True)
    kept = [record["raise"] for record in read_documents(tmp_path / "documents.jsonl")]
    assert kept == [{"privacy_pii": 0.75}, {}, {"self_harm": 0.75}, {}]
    report(tmp_path)
    assert all("raise" not in record for record in read_documents(tmp_path / "documents.jsonl"))
