"""What RAISE-1 found in one source, category by category: counts, shares, and hashes in place of examples.

No text is in it: whoever may see the report need not be allowed to see what was found. A hash finds its document in the
source again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulmen_core.guard import DocumentVerdict

JSON_FILE, TEXT_FILE = "raise-1.json", "raise-1.md"
#: Hashes of each category that are kept.
_EXAMPLES = 5
#: A Han character or a word: what stands for a token, as the tokenizer is trained on what this keeps.
_WORD = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\\W\u3400-\u9fff\uf900-\ufaff]+")


@dataclass
class _Category:
    findings: int = 0
    documents: int = 0
    words: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    detectors: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


@dataclass
class CorpusReport:
    """Counts as documents are judged.

    Args:
        source: the file that they come from.
        policy_version: of the guard.
    """

    source: str
    policy_version: str
    documents: Counter[str] = field(default_factory=Counter)  # action -> how many
    words: Counter[str] = field(default_factory=Counter)  # action -> words of the documents as they came
    degraded: Counter[str] = field(default_factory=Counter)  # detector -> documents that it gave no result on
    categories: dict[str, _Category] = field(default_factory=dict)

    def add(self, text: str, verdict: DocumentVerdict, action: str) -> None:
        """Count a document.

        Args:
            text: as it came.
            verdict: the guard's.
            action: what became of it.
        """
        words = len(_WORD.findall(text))
        self.documents[action] += 1
        self.words[action] += words
        self.degraded.update(verdict.degraded)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        for code in sorted({finding.category for finding in verdict.findings}):
            found = [finding for finding in verdict.findings if finding.category == code]
            entry = self.categories.setdefault(code, _Category())
            entry.findings += len(found)
            entry.documents += 1
            entry.words += words
            entry.actions[action] += 1
            entry.labels.update(finding.label for finding in found)
            entry.detectors.update(finding.detector for finding in found)
            if len(entry.examples) < _EXAMPLES:
                entry.examples.append(digest)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON holds it. Shares are of all documents, and of all words of them."""
        seen, words = self.documents.total(), self.words.total()
        return {
            "source": self.source,
            "policy_version": self.policy_version,
            "documents": {"seen": seen, **_sorted(self.documents)},
            "words": {"seen": words, **_sorted(self.words)},
            "degraded": _sorted(self.degraded),
            "categories": {
                code: {
                    "findings": one.findings,
                    "documents": one.documents,
                    "share_of_documents": _share(one.documents, seen),
                    "share_of_words": _share(one.words, words),
                    "actions": _sorted(one.actions),
                    "labels": _sorted(one.labels),
                    "detectors": _sorted(one.detectors),
                    "examples_sha256": one.examples,
                }
                for code, one in sorted(self.categories.items())
            },
        }

    def write(self, folder: Path) -> None:
        """Write the report to `folder`, for programs and for people."""
        (folder / JSON_FILE).write_text(json.dumps(self.as_json(), indent=2) + "\n", "utf-8")
        (folder / TEXT_FILE).write_text(self.as_text(), "utf-8")

    def as_text(self) -> str:
        """Return the report as a page of Markdown."""
        told = self.as_json()
        counts = ", ".join(f"{count:,} {action}" for action, count in told["documents"].items())
        lines = [
            f"# RAISE-1: {Path(self.source).parent.name or self.source}",
            "",
            f"Policy {self.policy_version}. Documents: {counts}.",
            "",
            "| category | documents | of all | words, of all | findings | what became of them | found as | by |",
            "|---|--:|--:|--:|--:|---|---|---|",
        ]
        for code, one in told["categories"].items():
            shares = f"{one['share_of_documents']:.2%} | {one['share_of_words']:.2%}"
            cells = (_listed(one[key]) for key in ("actions", "labels", "detectors"))
            lines.append(f"| {code} | {one['documents']:,} | {shares} | {one['findings']:,} | {' | '.join(cells)} |")
        if not told["categories"]:
            lines.append("| nothing was found | | | | | | | |")
        if told["degraded"]:
            lines += ["", f"Judged without a detector that failed: {_listed(told['degraded'])}."]
        return "\n".join(lines) + "\n"


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'finding'} {count:,}" for name, count in counts.items())
