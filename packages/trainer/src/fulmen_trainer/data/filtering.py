"""RAISE-1 on the corpus: every document is judged, and what becomes of it is counted (report section 6).

A filter that raises is not trusted with the document: it goes to quarantine, and the run stops when that happens too
often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from json import dumps
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.guard import DocumentVerdict, Guard
from fulmen_trainer.data.corpus_report import CorpusReport
from fulmen_trainer.data.documents import Record, read_documents, text_of, write_documents

#: Below this many documents a rate says nothing yet; at the end it is checked whatever their number.
RATE_AFTER = 50


#: Key under which a record that is kept carries what was found in it, if labels are asked for.
LABELS = "raise"


def filter_documents(
    source: Path, work: Path, guard: Guard, *, max_quarantine_rate: float, label: bool = False
) -> dict[str, Any]:
    """Judge every record of `source`; write ``documents.jsonl`` (kept), ``quarantine.jsonl`` (with the reason) and the
    report (`corpus_report`) to `work`.

    A document may be rewritten; an instruction that would have to be is dropped, for its answer may no longer fit.

    Args:
        label: whether each kept record gets the key `LABELS`: category -> the highest score found in it.

    Returns:
        Counts of documents kept (redacted ones among them), redacted, dropped, quarantined; bytes kept; and for each
        action but keep the number of documents per category of the findings.

    Raises:
        UserError: more than `max_quarantine_rate` of the documents are quarantined, or none is kept.
    """
    counts: Counter[str] = Counter()
    report = CorpusReport(str(source), guard.policy_version)
    categories: dict[str, Counter[str]] = {action: Counter() for action in ("redact", "drop", "quarantine")}
    last_reason = ""

    def kept(quarantine: Any) -> Iterator[Record]:
        nonlocal last_reason
        for record in read_documents(source):
            counts["seen"] += 1
            text = text_of(record)
            verdict = _judge(guard, text)
            action = "drop" if verdict.action == "redact" and "messages" in record else verdict.action
            counts[action] += 1
            report.add(text, verdict, action)
            if action != "keep":
                categories[action].update({finding.category for finding in verdict.findings})
            if action == "quarantine":
                last_reason = verdict.reason
                quarantine.write(dumps({**record, "reason": verdict.reason}, ensure_ascii=False) + "\n")
                if counts["seen"] >= RATE_AFTER:
                    _check_rate(counts, max_quarantine_rate, source, last_reason)
            elif action != "drop":
                result = {**record, "text": verdict.text} if action == "redact" else record
                if label:
                    result = {**result, LABELS: _labels(verdict)}
                counts["bytes"] += len(text_of(result).encode("utf-8"))
                yield result

    with ExitStack() as stack:
        quarantine = stack.enter_context((work / "quarantine.jsonl").open("w", encoding="utf-8", newline="\n"))
        written = write_documents(work / "documents.jsonl", kept(quarantine))
    report.write(work)
    _check_rate(counts, max_quarantine_rate, source, last_reason)
    if not written:
        raise UserError(
            f"RAISE-1 kept none of {counts['seen']} documents",
            where=str(source),
            remedy="check the policy of the guard",
        )
    return {
        "documents": written,
        "bytes": counts["bytes"],
        "redacted": counts["redact"],
        "dropped": counts["drop"],
        "quarantined": counts["quarantine"],
        "categories": {action: dict(sorted(found.items())) for action, found in categories.items() if found},
    }


def _labels(verdict: DocumentVerdict) -> dict[str, float]:
    highest: dict[str, float] = {}
    for finding in verdict.findings:
        highest[finding.category] = max(highest.get(finding.category, 0.0), round(finding.score, 4))
    return dict(sorted(highest.items()))


def _judge(guard: Guard, text: str) -> DocumentVerdict:
    try:
        return guard.judge_document(text)
    except Exception as error:
        return DocumentVerdict("quarantine", text, reason=f"{guard.name} raised {type(error).__name__}: {error}")


def _check_rate(counts: Counter[str], limit: float, source: Path, reason: str) -> None:
    if counts["quarantine"] > limit * counts["seen"]:
        raise UserError(
            f"{counts['quarantine']} of {counts['seen']} documents are in quarantine, more than {limit:.1%}",
            where=str(source),
            remedy=f"mend the filter or raise guard.max_quarantine_rate (last reason: {reason})",
        )
